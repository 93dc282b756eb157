//! `meshctl bugreport`: what somebody elsewhere needs to see to help, in one file.

mod secrets;
mod sources;

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use anyhow::Context as _;

use crate::{
    output::{Table, now, say},
    place::Place,
};

/// Collects what somebody elsewhere needs to see to help, as a tar, and lists what is in it.
///
/// State of the mesh, of the host's network, and logs of the last while: addresses, names of hosts and containers, rules of the
/// packet filter. No keys, tokens or passwords. Look into it before you give it away.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The file, which is not to be there; meshctl-bugreport-TIME.tar here if none is given.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A file of the report.
struct Entry {
    name: &'static str,
    /// What was asked.
    asked: String,
    /// What came of it, without secrets; or why nothing did.
    answer: Result<String, String>,
}

/// Writes the report.
pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<()> {
    let path = match &options.output {
        Some(path) => path.clone(),
        None => format!("meshctl-bugreport-{}.tar", now()).into(),
    };
    let file = create(&path)?;
    let place = place.arguments();
    let mut entries = Vec::new();
    for source in sources::ALL {
        let answer = source.answer(&place).await;
        entries.push(Entry {
            name: source.name,
            asked: source.asked(),
            answer: answer
                .map(|text| secrets::removed(&text))
                .map_err(|why| secrets::removed(&why)),
        });
    }
    write(file, &entries).with_context(|| format!("cannot write {}", path.display()))?;
    say(contents(&entries))?;
    say(format!(
        "\n{}: look into it before you give it away (tar -xOf {} | less)",
        path.display(),
        path.display()
    ))
}

/// Its owner's alone, and never in the place of another.
fn create(path: &PathBuf) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    let created = options.write(true).create_new(true).mode(0o600).open(path);
    created.with_context(|| {
        format!(
            "cannot create {}; give another file with --output",
            path.display()
        )
    })
}

fn write(file: File, entries: &[Entry]) -> std::io::Result<()> {
    let mut tar = tar::Builder::new(BufWriter::new(file));
    let mut append = |name: &str, text: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now());
        tar.append_data(&mut header, format!("bugreport/{name}"), text.as_bytes())
    };
    append("contents.txt", &(contents(entries) + "\n"))?;
    for entry in entries {
        if let Ok(text) = &entry.answer {
            append(entry.name, text)?;
        }
    }
    tar.into_inner()?.flush()
}

/// What is in it, and what is not and why.
fn contents(entries: &[Entry]) -> String {
    let mut table = Table::new(["FILE", "BYTES", "WHAT WAS ASKED"]);
    for entry in entries {
        let (bytes, asked) = match &entry.answer {
            Ok(text) => (text.len().to_string(), entry.asked.clone()),
            Err(why) => ("-".to_owned(), format!("{}: {why}", entry.asked)),
        };
        table.row([entry.name.to_owned(), bytes, asked]);
    }
    table.text()
}
