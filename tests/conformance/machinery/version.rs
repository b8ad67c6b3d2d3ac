//! `/version`.

use crate::Test;

pub async fn the_version_is_semantic(test: &Test) {
    let version = test.api.get("/version").await.ok();
    let major = version["major"].as_str().expect("major");
    let minor = version["minor"].as_str().expect("minor");
    assert_eq!(major.parse::<u32>().ok(), Some(1), "{version}");
    assert!(minor.trim_end_matches('+').parse::<u32>().is_ok_and(|minor| minor >= 37), "{version}");
    let git = version["gitVersion"].as_str().expect("gitVersion").trim_start_matches('v');
    assert!(git.starts_with(&format!("{major}.{}.", minor.trim_end_matches('+'))), "{version}");
}
