//! Secrets of type `kubernetes.io/service-account-token` hold a token of the account they name, bound to the Secret.
//!
//! Rules
//!   R1 filled      token, root certificate and namespace are filled in where they are missing
//!   R2 account     an account that is not there fills nothing; its uid goes into the annotation, and into the token
//!
//! Source: "Manually create a long-lived API token for a ServiceAccount".
//! Not here       removing the Secret when its account goes: its token ends by then

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use windlass_api::kinds;

use crate::identity::service_account_user;
use crate::key;
use crate::server::{Call, header};
use crate::token::{Claims, ISSUER, Private, Ref};
use crate::write::text;

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

pub(super) fn fill(call: Call<'_>, secret: &mut Value) {
    let account = text(&secret["metadata"]["annotations"], ACCOUNT_NAME).to_owned();
    if text(secret, "type") != TYPE || account.is_empty() || account.contains('/') {
        return;
    }
    let (server, namespace) = (call.server, &call.target.namespace);
    let Some(entry) = server.store.get(&key::object(&kinds::SERVICE_ACCOUNT, namespace, &account)) else { return };
    let uid = header(&entry).uid().to_owned();
    secret["metadata"]["annotations"][ACCOUNT_UID] = json!(uid);
    if !secret["data"].is_object() {
        secret["data"] = json!({});
    }
    if text(&secret["data"], "token").is_empty() {
        let metadata = &secret["metadata"];
        let own = Ref { name: text(metadata, "name").to_owned(), uid: text(metadata, "uid").to_owned() };
        let now = server.world.now().as_second();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            sub: service_account_user(namespace, &account),
            aud: vec![ISSUER.to_owned()],
            iat: now,
            nbf: now,
            exp: None,
            jti: server.world.uuid(),
            private: Private {
                namespace: namespace.clone(),
                account: Ref { name: account, uid },
                secret: Some(own),
                ..Private::default()
            },
        };
        secret["data"]["token"] = json!(STANDARD.encode(server.tokens.sign(&claims)));
    }
    if text(&secret["data"], "namespace").is_empty() {
        secret["data"]["namespace"] = json!(STANDARD.encode(namespace));
    }
    if let Some(pki) = server.config.pki.as_ref().filter(|_| text(&secret["data"], "ca.crt").is_empty()) {
        secret["data"]["ca.crt"] = json!(STANDARD.encode(pki.ca_pem()));
    }
}
