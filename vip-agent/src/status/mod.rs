//! `vip-agent status`: what an agent says of itself.

mod render;
mod report;

pub use render::render;
pub use report::{
    CheckState, CheckStatus, ConflictResponse, ConflictStatus, Counters, DrainStatus, EtcdStatus,
    GateState, GateStatus, HandOverStatus, HookStatus, InterfaceStatus, LeaseStatus, MemberStatus,
    State, Status, VipStatus,
};
