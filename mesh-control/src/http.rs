//! HTTP below the API: connections and bodies, each bounded in number, size and time.

pub mod accept;
mod bare_answer;
pub(crate) mod body;
pub(crate) mod connection;
