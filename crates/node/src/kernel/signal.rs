//! Signals by their names.

/// What a container is asked to end with when nobody says otherwise.
const TERM: i32 = 15;

/// Names and numbers (signal(7), x86 and ARM).
const SIGNALS: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];
/// The first and the last real-time signal as programs see them.
const REAL_TIME: (i32, i32) = (34, 64);

/// The number of a signal given by name (`SIGTERM`, `TERM`, `SIGRTMIN+3`) or number; `SIGTERM` when it is neither: an image
/// may say anything here, and its container must still be stopped.
pub fn number(text: &str) -> i32 {
    let name = text.trim().to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some((_, number)) = SIGNALS.iter().find(|(known, _)| *known == name) {
        return *number;
    }
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign)?.parse::<i32>().ok(),
    };
    let (first, last) = REAL_TIME;
    let real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => offset(rest, '+').map(|offset| first + offset),
        (_, Some(rest)) => offset(rest, '-').map(|offset| last - offset),
        _ => name.parse::<i32>().ok(),
    };
    real_time.filter(|number| (1..=last).contains(number)).unwrap_or(TERM)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn signals_are_read_in_every_form_images_use() {
        let rows = [
            ("SIGTERM", 15),
            ("quit", 3),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("", 15),
            ("nonsense", 15),
            ("0", 15),
            ("65", 15),
            ("-1", 15),
            ("RTMIN+99", 15),
        ];
        for (text, expected) in rows {
            assert_eq!(number(text), expected, "{text:?}");
        }
    }
}
