//! What a token is bound to must be there: the account, and the pod, Secret or node.
//!
//! Rules
//!   N1 same       of the same uid: a namesake that came later is somebody else
//!   N2 ending     what is being deleted counts for [`ENDING_SECONDS`] after its end was due, so that a pod that is asked to
//!                 stop can still do so in good order
//!   N3 node       of a pod's token the node is only told; a token bound to a node alone ends with it
//!
//! Source: KEP-4193; validation of bound tokens as kube-apiserver does it.

use jiff::Timestamp;
use windlass_api::{Kind, kinds};

use crate::identity::Identity;
use crate::key;
use crate::server::{Server, header};
use crate::token::TokenError;
use crate::token::claims::{Claims, Private, Ref};

/// How long after its end was due an object that is still there counts.
const ENDING_SECONDS: i64 = 60;

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_UID: &str = "authentication.kubernetes.io/node-uid";
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// Whom checked claims prove, if all that they are bound to is there.
pub(crate) fn identity(server: &Server, claims: &Claims) -> Result<Identity, TokenError> {
    let Private { namespace, account, pod, secret, node } = &claims.private;
    let now = server.world.now();
    check(server, &kinds::SERVICE_ACCOUNT, namespace, account, now)?;
    if let Some(pod) = pod {
        check(server, &kinds::POD, namespace, pod, now)?;
    }
    if let Some(secret) = secret {
        check(server, &kinds::SECRET, namespace, secret, now)?;
    }
    if let (Some(node), None) = (node, pod) {
        check(server, &kinds::NODE, "", node, now)?;
    }
    let mut who = Identity::service_account(namespace, &account.name, &account.uid);
    let mut tell = |key: &str, text: &str| who.extra.insert(key.to_owned(), vec![text.to_owned()]);
    tell(CREDENTIAL_ID, &format!("JTI={}", claims.jti));
    if let Some(pod) = pod {
        tell(POD_NAME, &pod.name);
        tell(POD_UID, &pod.uid);
    }
    if let Some(node) = node {
        tell(NODE_NAME, &node.name);
        tell(NODE_UID, &node.uid);
    }
    Ok(who)
}

fn check(server: &Server, kind: &Kind, namespace: &str, wanted: &Ref, now: Timestamp) -> Result<(), TokenError> {
    let gone = || TokenError::Unbound(format!("{} {:?}", kind.kind, wanted.name));
    // What was signed here holds only names that were checked, and a name that holds a slash is none.
    if wanted.name.contains('/') || namespace.contains('/') {
        return Err(gone());
    }
    let entry = server.store.get(&key::object(kind, namespace, &wanted.name)).ok_or_else(gone)?;
    let header = header(&entry);
    let is_over = header.deletion().is_some_and(|at| {
        at.parse::<Timestamp>().is_ok_and(|at| now.as_second() > at.as_second().saturating_add(ENDING_SECONDS))
    });
    if header.uid() != wanted.uid || is_over { Err(gone()) } else { Ok(()) }
}
