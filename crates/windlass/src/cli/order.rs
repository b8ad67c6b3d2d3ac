//! Flags before the verb: `windlass -n team get pods` means `windlass get -n team pods`, as people are used to.

use std::ffi::OsString;

/// Flags of a session that take a value.
const VALUED: &[&str] = &[
    "-n",
    "--namespace",
    "--kubeconfig",
    "--context",
    "--cluster",
    "--user",
    "-s",
    "--server",
    "--token",
    "--certificate-authority",
    "--client-certificate",
    "--client-key",
    "--request-timeout",
];
/// Flags of a session that take none.
const BARE: &[&str] = &["--insecure-skip-tls-verify", "--allow-exec-plugin"];
/// Flags of every command, which stay where they are.
const STAYING: &[&str] = &["--instance", "--data-dir", "--run-dir"];

/// The words of a command line, session flags moved behind the verb.
pub fn verb_first(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words = words.into_iter().peekable();
    let mut kept: Vec<OsString> = words.next().into_iter().collect();
    let mut moved = Vec::new();
    while let Some(word) = words.peek().map(|word| word.to_string_lossy().into_owned()) {
        let name = word.split('=').next().unwrap_or_default();
        let has_value = word.contains('=') || (name.starts_with("-n") && !name.starts_with("--") && name.len() > 2);
        let short = if name.starts_with("-n") && !name.starts_with("--") { "-n" } else { name };
        let place = match () {
            () if VALUED.contains(&short) || BARE.contains(&name) => &mut moved,
            () if STAYING.contains(&name) => &mut kept,
            () => break,
        };
        place.extend(words.next());
        if !has_value && !BARE.contains(&name) {
            place.extend(words.next());
        }
    }
    kept.extend(words.next());
    kept.extend(moved);
    kept.extend(words);
    kept
}

#[cfg(test)]
mod tests {
    use super::verb_first;

    fn check(words: &str, expected: &str) {
        let ordered = verb_first(words.split(' ').map(Into::into));
        let ordered: Vec<String> = ordered.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
        assert_eq!(ordered.join(" "), expected);
    }

    #[test]
    fn session_flags_move_behind_the_verb() {
        check("w -n a get pods", "w get -n a pods");
        check("w -na --context=c get pods -o name", "w get -na --context=c pods -o name");
        check(
            "w --instance i --insecure-skip-tls-verify -s u get",
            "w --instance i get --insecure-skip-tls-verify -s u",
        );
        check("w get -n a", "w get -n a");
        check("w up --detach", "w up --detach");
        check("w --help", "w --help");
        check("w -n", "w -n");
    }
}
