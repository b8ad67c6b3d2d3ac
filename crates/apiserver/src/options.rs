//! Where a list or watch reads: what `resourceVersion`, `resourceVersionMatch`, `limit`, `continue` and
//! `sendInitialEvents` mean together.
//!
//! Goal        one pure reading of the parameters; what they ask for is carried out in `list` and `watch`
//!
//! Rules
//!   R1 newest       a list without `resourceVersion` sees everything acknowledged before the request
//!   R2 at least     with one, it shows that revision or a newer one; `0` is content with what is there
//!   R3 exact        `resourceVersionMatch=Exact` shows that revision and no other. So does `limit` with a
//!                   `resourceVersion` above 0 and no match: that was so before there were matches
//!   R4 pages        `continue` goes on where another list ended, and takes no revision of its own
//!   R5 watch        without `sendInitialEvents` a watch begins after its `resourceVersion`; without one, or at `0`, with
//!                   the present objects
//!   R6 initial      `sendInitialEvents` says whether the present objects come first, at least as new as
//!                   `resourceVersion`; it needs `resourceVersionMatch=NotOlderThan`
//!   R7 refusals     combinations without a meaning are 422 and name the parameter; texts that are no number are 400
//!
//! Source: API concepts, "Resource versions", "Semantics for get and list", "Semantics for watch", "Streaming lists".

use std::borrow::Cow;

use windlass_api::field::{Errors, Path};
use windlass_api::{ApiError, Kind};
use windlass_store::Revision;

use crate::request::{Query, short};

/// The parameters as refusals name them: an object of their own.
static LIST_OPTIONS: Kind = Kind {
    group: Cow::Borrowed("meta.k8s.io"),
    version: Cow::Borrowed("v1"),
    kind: Cow::Borrowed("ListOptions"),
    plural: Cow::Borrowed("listoptions"),
    namespaced: false,
};

/// What a list shows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ListAt {
    /// Everything acknowledged before the request (R1).
    Newest,
    /// This revision or a newer one (R2).
    AtLeast(Revision),
    /// This revision (R3).
    Exactly(Revision),
    /// What follows the page that this token came with (R4).
    After(String),
}

/// What a list asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ListOptions {
    pub at: ListAt,
    /// The most objects of a page; 0 for all.
    pub limit: usize,
}

/// Where a watch begins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WatchStart {
    /// The revision asked for; `None` for everything acknowledged before the request, 0 for what is there.
    pub revision: Option<Revision>,
    /// The present objects come first.
    pub with_state: bool,
    /// A bookmark says that they have all come.
    pub says_end_of_state: bool,
}

impl ListOptions {
    pub fn parse(query: &Query) -> Result<ListOptions, ApiError> {
        let matching = query.get("resourceVersionMatch");
        let path = Path::new("resourceVersionMatch");
        let mut errors = Errors::new();
        if let Some(matching) = matching {
            if query.get("resourceVersion").is_none() {
                let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                errors.forbidden(&path, why);
            }
            check_no_continue(query, &mut errors);
            if !matches!(matching, "Exact" | "NotOlderThan") {
                errors.not_supported(&path, matching, &["Exact", "NotOlderThan", ""]);
            }
            if matching == "Exact" && query.get("resourceVersion") == Some("0") {
                let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                errors.forbidden(&path, why);
            }
        }
        if query.flag_if_set("sendInitialEvents")?.is_some() {
            errors.forbidden(&Path::new("sendInitialEvents"), "sendInitialEvents is forbidden for list");
        }
        refuse_if_any(&errors)?;
        let limit = limit(query)?;
        let asked = asked_revision(query)?;
        let at = match (query.get("continue"), asked) {
            (Some(_), Some(revision)) if revision > 0 => {
                return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
            }
            (Some(token), _) => ListAt::After(token.to_owned()),
            (None, None) => ListAt::Newest,
            (None, Some(revision)) => match matching {
                Some("Exact") => ListAt::Exactly(revision),
                None if limit > 0 && revision > 0 => ListAt::Exactly(revision),
                _ => ListAt::AtLeast(revision),
            },
        };
        Ok(ListOptions { at, limit })
    }
}

impl WatchStart {
    pub fn parse(query: &Query) -> Result<WatchStart, ApiError> {
        let send_initial = query.flag_if_set("sendInitialEvents")?;
        let matching = query.get("resourceVersionMatch");
        let path = Path::new("resourceVersionMatch");
        let mut errors = Errors::new();
        if send_initial.is_some() && matching != Some("NotOlderThan") {
            errors.forbidden(&path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        if let Some(matching) = matching {
            if send_initial.is_none() {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                errors.forbidden(&path, why);
            }
            if matching != "NotOlderThan" {
                errors.not_supported(&path, matching, &["NotOlderThan"]);
            }
            check_no_continue(query, &mut errors);
        }
        refuse_if_any(&errors)?;
        let revision = asked_revision(query)?;
        Ok(WatchStart {
            revision,
            with_state: send_initial.unwrap_or(revision.unwrap_or(0) == 0),
            says_end_of_state: send_initial == Some(true),
        })
    }
}

fn check_no_continue(query: &Query, errors: &mut Errors) {
    if query.get("continue").is_some() {
        let why = "resourceVersionMatch is forbidden when continue is provided";
        errors.forbidden(&Path::new("resourceVersionMatch"), why);
    }
}

fn refuse_if_any(errors: &Errors) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(&LIST_OPTIONS, "", errors)) }
}

fn limit(query: &Query) -> Result<usize, ApiError> {
    match query.number("limit")? {
        None => Ok(0),
        Some(limit) => usize::try_from(limit)
            .map_err(|_| ApiError::bad_request(format!("expected a limit of at least 0, found {limit}"))),
    }
}

/// The revision that a get, list or watch names; `None` when it names none.
pub(crate) fn asked_revision(query: &Query) -> Result<Option<Revision>, ApiError> {
    let Some(text) = query.get("resourceVersion") else { return Ok(None) };
    let revision = text.parse().map_err(|_| {
        ApiError::bad_request(format!("Invalid value: {}: expected resourceVersion to be a whole number", short(text)))
    })?;
    Ok(Some(revision))
}

#[cfg(test)]
mod tests {
    use super::{ListAt, ListOptions, WatchStart};
    use crate::request::Query;

    fn query(text: &str) -> Query {
        let uri = format!("/x?{text}").parse().expect("a URI");
        Query::parse(&uri).expect("a query")
    }

    fn refused<T: std::fmt::Debug>(parsed: Result<T, windlass_api::ApiError>) -> String {
        let error = parsed.expect_err("refused");
        format!("{} {}", error.code(), error.message)
    }

    #[test]
    fn a_list_shows_what_revision_match_and_limit_mean_together() {
        let exactly = ListAt::Exactly;
        for (text, at, limit) in [
            ("", ListAt::Newest, 0),
            ("resourceVersion=", ListAt::Newest, 0),
            ("limit=5", ListAt::Newest, 5),
            ("resourceVersion=0", ListAt::AtLeast(0), 0),
            ("resourceVersion=0&limit=5", ListAt::AtLeast(0), 5),
            ("resourceVersion=0&resourceVersionMatch=NotOlderThan&limit=5", ListAt::AtLeast(0), 5),
            ("resourceVersion=7", ListAt::AtLeast(7), 0),
            ("resourceVersion=7&limit=5", exactly(7), 5),
            ("resourceVersion=7&resourceVersionMatch=NotOlderThan&limit=5", ListAt::AtLeast(7), 5),
            ("resourceVersion=7&resourceVersionMatch=Exact", exactly(7), 0),
            ("continue=abc&limit=5", ListAt::After("abc".to_owned()), 5),
            ("continue=abc&resourceVersion=0", ListAt::After("abc".to_owned()), 0),
        ] {
            assert_eq!(ListOptions::parse(&query(text)), Ok(ListOptions { at, limit }), "{text}");
        }
    }

    #[test]
    fn a_list_without_a_meaning_is_refused() {
        let invalid = "422 ListOptions.meta.k8s.io \"\" is invalid: ";
        for (text, expected) in [
            (
                "resourceVersionMatch=Exact",
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (
                "resourceVersion=1&resourceVersionMatch=Maybe",
                "resourceVersionMatch: Unsupported value: \"Maybe\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
            ),
            (
                "resourceVersion=0&resourceVersionMatch=Exact",
                "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
            (
                "resourceVersion=1&resourceVersionMatch=Exact&continue=x",
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided",
            ),
            ("sendInitialEvents=true", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"),
        ] {
            assert_eq!(refused(ListOptions::parse(&query(text))), format!("{invalid}{expected}"), "{text}");
        }
        let both = refused(ListOptions::parse(&query("resourceVersion=5&continue=x")));
        assert_eq!(both, "400 specifying resource version is not allowed when using continue");
        for text in ["resourceVersion=x", "resourceVersion=-1", "limit=-1", "limit=x"] {
            assert!(refused(ListOptions::parse(&query(text))).starts_with("400 "), "{text}");
        }
    }

    #[test]
    fn a_watch_begins_where_revision_and_initial_events_say() {
        let not_older = "resourceVersionMatch=NotOlderThan";
        for (text, revision, with_state, says_end) in [
            ("".to_owned(), None, true, false),
            ("resourceVersion=0".to_owned(), Some(0), true, false),
            ("resourceVersion=7".to_owned(), Some(7), false, false),
            (format!("sendInitialEvents=true&{not_older}"), None, true, true),
            (format!("sendInitialEvents=true&{not_older}&resourceVersion=7"), Some(7), true, true),
            (format!("sendInitialEvents=false&{not_older}&resourceVersion=7"), Some(7), false, false),
            (format!("sendInitialEvents=false&{not_older}"), None, false, false),
        ] {
            let expected = WatchStart { revision, with_state, says_end_of_state: says_end };
            assert_eq!(WatchStart::parse(&query(&text)), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_watch_without_a_meaning_is_refused() {
        let invalid = "422 ListOptions.meta.k8s.io \"\" is invalid: ";
        for (text, expected) in [
            (
                "sendInitialEvents=true",
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
            (
                "resourceVersionMatch=NotOlderThan",
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ),
        ] {
            assert_eq!(refused(WatchStart::parse(&query(text))), format!("{invalid}{expected}"), "{text}");
        }
        let exact = refused(WatchStart::parse(&query("sendInitialEvents=true&resourceVersionMatch=Exact")));
        assert!(exact.contains("requires setting") && exact.contains("supported values: \"NotOlderThan\""), "{exact}");
    }
}
