//! Pins of maps and links that somebody has removed: the kernel tells nobody of that.

use aya::maps::MapData;
use mesh_layout::map_names;

use super::{FastPath, FastPathError, bpffs::PinDirectory};

/// The maps by their own handles, from which lost pins are made again.
#[derive(Debug, Default)]
pub(super) struct PinnedMaps(Vec<(&'static str, MapData)>);

impl PinnedMaps {
    /// Opens every pinned map once more.
    pub(super) fn open(pins: &PinDirectory) -> Result<Self, FastPathError> {
        let open = |name| {
            let map = MapData::from_pin(pins.map(name))
                .map_err(|source| FastPathError::Map { map: name, source })?;
            Ok((name, map))
        };
        map_names::ALL
            .into_iter()
            .map(open)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl FastPath {
    /// Makes the pins of maps and links that somebody has removed again, and returns how many:
    /// without them the next runtime would begin with empty maps, and no program would outlive
    /// this one.
    ///
    /// # Errors
    ///
    /// A pin that cannot be made.
    pub fn restore_pins(&self) -> Result<usize, FastPathError> {
        let missing: Vec<_> = self
            .pinned
            .0
            .iter()
            .filter(|(name, _)| !self.pins.map(name).exists())
            .collect();
        // While a job attaches, that has the links.
        let unpinned = self
            .programs
            .as_ref()
            .map_or_else(Vec::new, |programs| programs.attachments.unpinned());
        // Without the directory of the links nothing could be attached any more.
        if missing.is_empty() && unpinned.is_empty() && self.pins.links().exists() {
            return Ok(0);
        }
        self.pins.make_directories()?;
        for (name, map) in &missing {
            map.pin(self.pins.map(name))
                .map_err(|error| FastPathError::PinDirectory {
                    action: "pin a map in",
                    path: self.pins.map(name),
                    source: std::io::Error::other(error),
                })?;
        }
        let mut restored = missing.len();
        self.pins.link_names()?;
        if let Some(programs) = &self.programs {
            for hook in unpinned {
                programs.attachments.pin_again(hook)?;
                restored += 1;
            }
        }
        Ok(restored)
    }
}
