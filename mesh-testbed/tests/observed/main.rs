//! What a cluster shows of itself: its daemons' metrics and health, a real Prometheus that scrapes them, and what dashboard
//! and alerts make of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

mod cluster;
mod health;
mod page;
mod pages;
mod prometheus;
mod scraped;
