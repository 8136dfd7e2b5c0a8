//! The testbed: real programs, real etcd and real frames on one machine.
//!
//! A [`bed::Bed`] is a switch, some nodes and a client, each a network namespace; a real etcd cluster; and agents as processes. [`fault`] breaks
//! things as the world does, [`probe`] tells what a client noticed of it. Everything blocks and is plain `std`: a test reads from top to bottom.
//!
//! | module | what it knows |
//! |---|---|
//! | [`bed`] | the whole: raise, tear down, one scenario from start to end |
//! | [`netns`], [`switch`], [`xdp_pass`], [`node`], [`addresses`] | the machines and the wires |
//! | [`process`], [`etcd`], [`disk`], [`tls`], [`agent`], [`gate`] | the programs that run on them, their disks, and the pinned maps |
//! | [`owners`], [`etcd_watch`], [`etcd_load`] | who owns what by etcd's keys, their changes as they come, and what etcd has to do |
//! | [`operator`] | the commands that people type at a node |
//! | [`fault`], [`failover`] | stop, kill, freeze, power cut, cable, loss of etcd alone, a sick etcd member; and what follows |
//! | [`undo`], [`wall_clock`] | what others on the machine undo behind an agent's back |
//! | [`stranger`] | a machine that takes the shared IP for its own |
//! | [`chaos`] | random faults, several at once |
//! | [`probe`] | outage, and rounds answered by two |
//! | [`conversation`] | an open TCP connection, and what it noticed |
//! | [`figures`] | how often a thing is played, and its middle and worst figures |
//! | [`wire`] | the neighbour protocols' frames, as the nodes send them |
//! | [`run`], [`privilege`], [`interrupt`], [`wait`], [`command`], [`say`] | names and leftovers of a run, what it needs, Ctrl-C, waiting, helpers |

pub mod addresses;
pub mod agent;
pub mod bed;
pub mod chaos;
pub mod command;
pub mod conversation;
pub mod disk;
pub mod etcd;
pub mod etcd_load;
pub mod etcd_watch;
pub mod failover;
pub mod fault;
pub mod figures;
pub mod gate;
pub mod interrupt;
pub mod netns;
pub mod node;
pub mod operator;
pub mod owners;
pub mod privilege;
pub mod probe;
pub mod process;
pub mod run;
pub mod say;
pub mod stranger;
pub mod switch;
pub mod tls;
pub mod undo;
pub mod wait;
pub mod wall_clock;
pub mod wire;
pub mod xdp_pass;
