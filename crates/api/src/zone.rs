//! Time zones by name.
//!
//! Guarantees  the same names and hours on every machine: the IANA database is part of the program
//! Not here    `Local`: no two servers would agree on it

use std::sync::OnceLock;

use jiff::tz::{TimeZone, TimeZoneDatabase};

/// The longest name looked up; none in the database is longer.
const NAME_BYTES_MAX: usize = 64;

/// The zone of exactly this name, such as `Europe/Vienna`.
pub fn find_zone(name: &str) -> Option<TimeZone> {
    static DATABASE: OnceLock<TimeZoneDatabase> = OnceLock::new();
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let found = DATABASE.get_or_init(TimeZoneDatabase::bundled).get(name).ok()?;
    (found.iana_name() == Some(name)).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::find_zone;

    #[test]
    fn a_zone_is_known_by_its_exact_name_only() {
        assert!(find_zone("Europe/Vienna").is_some());
        for name in ["europe/vienna", "Local", "", "../etc/localtime", &"Europe/".repeat(1_000)] {
            assert!(find_zone(name).is_none(), "{name}");
        }
    }
}
