//! Where in the kernel every thread is: what a check that does not end waits for.

use std::{fmt::Write as _, fs, path::Path};

/// The stacks of all threads but the kernel's idle ones.
pub(crate) fn all() -> String {
    let mut text = String::from("where every thread is in the kernel:\n");
    for process in entries(Path::new("/proc")) {
        for task in entries(&process.join("task")) {
            let read = |name: &str| fs::read_to_string(task.join(name)).unwrap_or_default();
            let state = read("stat");
            // "pid (name) S …": I is a kernel thread without work.
            let idle = state
                .rsplit(") ")
                .next()
                .is_some_and(|it| it.starts_with('I'));
            if idle || state.is_empty() {
                continue;
            }
            let end = state.find(") ").map_or(state.len(), |at| at + 3);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", &state[..end.min(state.len())]);
            for line in read("stack").lines().take(8) {
                let _ = writeln!(text, "    {line}");
            }
        }
    }
    text
}

/// Folders that are named by a number.
fn entries(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let numbered = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_string_lossy()
            .bytes()
            .all(|byte| byte.is_ascii_digit())
    });
    numbered.map(|entry| entry.path()).collect()
}
