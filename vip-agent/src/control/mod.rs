//! What people ask of a running agent, over a unix socket in its state directory.
//!
//! One connection is one request: a line of JSON, `{"transfer":{"vip":"192.168.0.15","to":"cp-2"}}`. Lines of JSON
//! come back: any number of `{"progress":"…"}`, then one `{"result":{…}}` or `{"error":{"kind":"…","message":"…"}}`,
//! and the agent hangs up. Who asks nothing, or asks as versions before this one did, gets the status as a bare
//! document.

mod answer;
mod client;
mod render;
mod request;
mod server;

pub use answer::{
    Drained, Error, ErrorKind, Line, Members, Node, NodeState, Reloaded, Reply, Success,
    Transferred, Unit, UnitOwner, Waiting,
};
pub use client::{Agent, ask};
pub use render::render;
pub use request::{LONGEST_WAIT, Request};
pub use server::{Asked, serve};
