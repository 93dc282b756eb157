//! The control plane as its users meet it: the real process, over loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod access;
mod answer;
mod pooler;
#[allow(dead_code, reason = "the tests in kernel_disks use the rest")]
mod process;
mod refusal;
mod stepped_clock;

mod admin_socket;
mod audit;
mod authority;
mod authority_gone_back;
mod bad_database;
mod bad_requests;
mod change_feed;
mod checks;
mod clock_steps;
mod command_line;
mod connections;
mod copies;
mod database_in_trouble;
mod database_tls;
mod departures;
mod durability;
mod earlier_database;
mod etags;
mod findings;
mod first_credential;
mod health;
mod history;
mod joining;
mod joining_again;
mod kept_addresses;
mod key_file;
mod liveness;
mod messages;
mod node_list;
mod operators;
mod own_certificates;
mod registration;
mod replicas;
mod revoked_elsewhere;
mod settings;
mod strangers;
mod subnet_claims;
mod traffic;
mod traffic_of_replicas;
mod typed_client;
mod what_commands_say;
