//! Acting as somebody else: for those who may `impersonate` them.
//!
//! Rules
//!   I1 somebody     a user is named; groups, a uid and extras alone name nobody
//!   I2 each part    the user or service account, every group, the uid and every extra must be allowed by itself
//!   I3 groups       a service account is in its groups unless others are named; whoever is named is known, but for the
//!                   anonymous user
//!   I4 once         one user, one uid; a header said twice is refused, not chosen from (A32)
//!   I5 kept here    the headers go no further; headers of an authenticating proxy (`X-Remote-*`) mean nothing here
//!
//! Source: authentication reference, "User impersonation".

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;
use windlass_api::{ApiError, Reason};

use crate::authorize::{Asked, AskedObject, may, refusal};
use crate::identity::{
    ANONYMOUS, GROUP_AUTHENTICATED, GROUP_SERVICE_ACCOUNTS, GROUP_UNAUTHENTICATED, Identity, SERVICE_ACCOUNT_PREFIX,
};
use crate::server::Server;

const PREFIX: &str = "impersonate-";
const EXTRA_PREFIX: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";
/// Groups and extras of one request: each is asked about by itself.
const VALUES_MAX: usize = 256;

/// Whom a request wants to act as; `None` where it says nothing of the kind.
pub(crate) fn impersonate(
    server: &Server,
    who: &Identity,
    headers: &mut HeaderMap,
) -> Result<Option<Identity>, ApiError> {
    let named: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(PREFIX)).cloned().collect();
    if named.is_empty() {
        return Ok(None);
    }
    let wanted = read(headers, &named)?;
    check(server, who, &wanted)?;
    for name in named {
        headers.remove(name);
    }
    Ok(Some(known(wanted)))
}

/// I1 and I4.
fn read(headers: &HeaderMap, named: &[HeaderName]) -> Result<Identity, ApiError> {
    let mut wanted = Identity { name: String::new(), uid: String::new(), groups: Vec::new(), extra: BTreeMap::new() };
    let mut count = 0;
    for header in named {
        for value in headers.get_all(header) {
            let value = value.to_str().map_err(|_| refuse("an impersonation header is not text"))?.to_owned();
            count += 1;
            if count > VALUES_MAX {
                return Err(refuse(&format!("expected at most {VALUES_MAX} impersonation headers")));
            }
            match header.as_str() {
                "impersonate-user" => set_once(&mut wanted.name, value, "user")?,
                "impersonate-uid" => set_once(&mut wanted.uid, value, "uid")?,
                "impersonate-group" => wanted.groups.push(value),
                other => match other.strip_prefix(EXTRA_PREFIX) {
                    Some(key) => wanted.extra.entry(decoded(key)).or_default().push(value),
                    None => return Err(refuse(&format!("there is no impersonation header {other:?}"))),
                },
            }
        }
    }
    if wanted.name.is_empty() {
        return Err(ApiError::bad_request("requested impersonation without impersonating a user"));
    }
    Ok(wanted)
}

fn set_once(field: &mut String, value: String, what: &str) -> Result<(), ApiError> {
    if !field.is_empty() {
        return Err(refuse(&format!("expected one impersonated {what}, found several")));
    }
    *field = value;
    Ok(())
}

/// Header names are in lower case; what else a key holds is percent-encoded.
fn decoded(key: &str) -> String {
    percent_decode_str(key).decode_utf8().map_or_else(|_| key.to_owned(), |text| text.to_lowercase())
}

/// I2.
fn check(server: &Server, who: &Identity, wanted: &Identity) -> Result<(), ApiError> {
    let base =
        AskedObject { verb: "impersonate", group: "", resource: "users", sub: "", namespace: "", name: &wanted.name };
    let account = wanted.name.strip_prefix(SERVICE_ACCOUNT_PREFIX).and_then(|account| account.split_once(':'));
    let user = match account {
        Some((namespace, name)) => AskedObject { resource: "serviceaccounts", namespace, name, ..base },
        None => base,
    };
    let groups = wanted.groups.iter().map(|group| AskedObject { resource: "groups", name: group, ..base });
    let uid = Some(&wanted.uid).filter(|uid| !uid.is_empty());
    let uid = uid.map(|uid| AskedObject { group: AUTHENTICATION, resource: "uids", name: uid, ..base });
    let extras = wanted.extra.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
    let extras = extras.map(|(key, value)| AskedObject {
        group: AUTHENTICATION,
        resource: "userextras",
        sub: key,
        name: value,
        ..base
    });
    for asked in std::iter::once(user).chain(groups).chain(uid).chain(extras) {
        if may(server, who, &Asked::Object(asked)).is_err() {
            let shown = match asked.group {
                "" => asked.resource.to_owned(),
                group => format!("{}.{group}", asked.resource),
            };
            return Err(refuse(&format!("{shown} {:?} is forbidden: {}", asked.name, refusal(who, &asked))));
        }
    }
    Ok(())
}

/// I3.
fn known(mut wanted: Identity) -> Identity {
    if let Some((namespace, _)) = wanted.name.strip_prefix(SERVICE_ACCOUNT_PREFIX).and_then(|name| name.split_once(':'))
        && wanted.groups.is_empty()
    {
        wanted.groups = vec![GROUP_SERVICE_ACCOUNTS.to_owned(), format!("{GROUP_SERVICE_ACCOUNTS}:{namespace}")];
    }
    if !wanted.is_in(GROUP_AUTHENTICATED) && !wanted.is_in(GROUP_UNAUTHENTICATED) {
        let group = if wanted.name == ANONYMOUS { GROUP_UNAUTHENTICATED } else { GROUP_AUTHENTICATED };
        wanted.groups.push(group.to_owned());
    }
    wanted
}

fn refuse(why: &str) -> ApiError {
    ApiError::new(Reason::Forbidden, why)
}
