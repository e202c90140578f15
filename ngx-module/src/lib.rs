//! `ngx_http_paas_module`: routes a request to its site's backend, and wakes the site if it sleeps.
//!
//! * [`directives`] - what the configuration says, typed and checked;
//! * [`worker`], [`site`] - what this worker knows of the table: host to site, site to backend;
//! * [`role`] - `paas_role`: who is refused, which headers may not pass;
//! * [`balancer`] - `paas_hash`: which backend;
//! * [`health`] - `paas_eject`: which backends of the table fail;
//! * [`monitor`] - `paas_monitor`: what the workers share about backends, in a file; [`status`] - `paas_status`: it, for people and
//!   programs;
//! * [`heartbeat`] - `paas_health`: how this machine is;
//! * [`activity`] - `paas_activity`: how busy each site is;
//! * [`fallback`] - `paas_fallback`: asleep or broken; park, wake, replay;
//! * [`variables`] - `$paas_*`;
//! * [`ffi`] - the border to nginx, and the only `unsafe`; the tables nginx reads are in `ffi/module.rs`.
//!
//! The code must never block a worker (no database, no network, no lock somebody else holds), never panic
//! into nginx, and per request make no system call and allocate from the request's pool only.
#![deny(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::undocumented_unsafe_blocks
)]

mod activity;
mod balancer;
mod context;
mod directives;
mod fallback;
mod ffi;
mod health;
mod heartbeat;
mod monitor;
mod role;
mod site;
mod status;
mod variables;
mod worker;
