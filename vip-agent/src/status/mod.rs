//! `vip-agent status`: what an agent says of itself, over a unix socket.
//!
//! One connection is one JSON document; the agent writes it and hangs up.

mod client;
mod render;
mod report;
mod server;

pub use client::ask;
pub use render::render;
pub use report::{
    CheckState, CheckStatus, ConflictResponse, ConflictStatus, Counters, EtcdStatus, GateState,
    GateStatus, HookStatus, InterfaceStatus, LeaseStatus, MemberStatus, State, Status, VipStatus,
};
pub use server::{Request, serve};
