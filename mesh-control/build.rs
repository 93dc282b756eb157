//! Rebuilds the crate when a migration changes: `sqlx::migrate!` reads the folder at compile time,
//! and cargo does not see that by itself.
fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
