//! `meshctl top`: what is carried with whom, as it happens.

mod rates;
mod screen;

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use anyhow::Context as _;
use mesh_client::Inspector;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use tokio::time::{Instant, sleep};

use self::rates::{Look, Rates, between};
use crate::{
    output::{say, say_json},
    peers::peer,
    place::{NoRuntime, Place},
};

/// What is carried with each peer, as it happens, the busiest first.
///
/// On a terminal until q is pressed; elsewhere, or with --count or --json, as text.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Time between two looks, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    /// Print so many times, and end.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Print a document for a machine for each look.
    #[arg(long)]
    json: bool,
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds from 0.1 to 3600".to_owned()),
    }
}

/// Shows the rates.
pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<()> {
    let inspector = place.runtime().await.map_err(NoRuntime::into_error)?;
    let mut looks = Looks {
        inspector,
        start: Instant::now(),
        last: Look::default(),
    };
    looks.last = looks.look().await?;
    let pause = Duration::from_secs_f64(options.interval);
    if options.json || options.count.is_some() || !io::stdout().is_terminal() {
        return print(looks, options, pause).await;
    }
    let mut terminal = ratatui::try_init().context("cannot draw on this terminal")?;
    let ended = live(&mut terminal, looks, pause).await;
    ratatui::restore();
    ended
}

/// Looks at the counters, one after the other.
struct Looks {
    inspector: Inspector,
    start: Instant,
    last: Look,
}

impl Looks {
    async fn look(&mut self) -> anyhow::Result<Look> {
        let mut other = self.inspector.clone();
        let (status, peers) = tokio::join!(self.inspector.status(), other.peers());
        Ok(Look {
            at: self.start.elapsed().as_secs_f64(),
            peers: peers?.peers.into_iter().map(peer).collect(),
            drops: status?.drops.into_iter().collect(),
        })
    }

    /// What was carried since the look before.
    async fn rates(&mut self) -> anyhow::Result<Rates> {
        let look = self.look().await?;
        let rates = between(&self.last, &look);
        self.last = look;
        Ok(rates)
    }
}

async fn print(mut looks: Looks, options: &Options, pause: Duration) -> anyhow::Result<()> {
    let mut left = options.count;
    while left != Some(0) {
        sleep(pause).await;
        let rates = looks.rates().await?;
        match options.json {
            true => say_json(&rates)?,
            false => say(screen::text(&rates))?,
        }
        left = left.map(|left| left - 1);
    }
    Ok(())
}

async fn live(
    terminal: &mut DefaultTerminal,
    mut looks: Looks,
    pause: Duration,
) -> anyhow::Result<()> {
    let mut skip: usize = 0;
    let mut rates = Rates::default();
    let mut next = Instant::now() + pause.min(Duration::from_millis(200));
    loop {
        terminal.draw(|frame| screen::draw(frame, &rates, skip))?;
        // Nothing else is to be done meanwhile: the connection to the runtime rests.
        if event::poll(next.saturating_duration_since(Instant::now()))? {
            match pressed(&event::read()?) {
                Some(Key::End) => return Ok(()),
                Some(Key::Up) => skip = skip.saturating_sub(1),
                Some(Key::Down) => skip = (skip + 1).min(rates.peers.len().saturating_sub(1)),
                None => {}
            }
            continue;
        }
        rates = looks.rates().await?;
        next = Instant::now() + pause;
    }
}

enum Key {
    End,
    Up,
    Down,
}

fn pressed(event: &Event) -> Option<Key> {
    let Event::Key(key) = event else {
        return None;
    };
    if key.kind != KeyEventKind::Press {
        return None;
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::End),
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::End),
        KeyCode::Up | KeyCode::Char('k') => Some(Key::Up),
        KeyCode::Down | KeyCode::Char('j') => Some(Key::Down),
        _ => None,
    }
}
