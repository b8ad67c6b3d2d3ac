//! ClusterTrustBundle: certificates of authorities that whoever reads them may trust.
//!
//! Rules
//!   T1 bundle   certificates in PEM, at least one, each once, and nothing else
//!   T2 signer   who has signed, or nobody; it never changes
//!   T3 name     begins with the signer's, its slash a colon, and a colon more; without one it has no colon
//! Source: API reference, certificates.k8s.io/v1 ClusterTrustBundle.
//! Not here    whether who writes may speak for the signer (admission)

use std::collections::BTreeSet;

use base64::Engine;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::certificate_signing_request::validate_signer;
use super::tree::Tree;
use super::{age, age_column, column, name_column, row};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::resource::{Resource, Rules};

/// Bytes of a bundle, as Kubernetes has it.
const BUNDLE_BYTES_MAX: usize = 1 << 20;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The row of ClusterTrustBundle.
pub(super) fn resource() -> Resource {
    let columns = vec![name_column(), column("SignerName", "string", "who has signed"), age_column()];
    row(&kinds::CLUSTER_TRUST_BUNDLE, columns, ClusterTrustBundle).needs_revision().selectable(&["spec.signerName"])
}

struct ClusterTrustBundle;

impl Rules for ClusterTrustBundle {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        let (signer, name) = (spec.text("signerName"), object["metadata"].text("name"));
        let name_at = Path::new("metadata").child("name");
        match signer {
            "" if name.contains(':') => {
                errors.invalid(
                    &name_at,
                    name,
                    "ClusterTrustBundle without signer name must not have \":\" in its name",
                );
            }
            "" => {}
            signer => {
                validate_signer(signer, &at.child("signerName"), errors);
                let prefix = format!("{}:", signer.replace('/', ":"));
                if !name.starts_with(&prefix) {
                    let detail =
                        format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}");
                    errors.invalid(&name_at, name, &detail);
                }
            }
        }
        let (bundle, at) = (spec.text("trustBundle"), at.child("trustBundle"));
        if bundle.len() > BUNDLE_BYTES_MAX {
            return errors.too_long(&at, BUNDLE_BYTES_MAX);
        }
        if let Err(why) = certificates(bundle) {
            errors.invalid(&at, "<value omitted>", &why);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let signer = object["spec"].text("signerName");
        if signer != old["spec"].text("signerName") {
            errors.immutable(&Path::new("spec").child("signerName"), signer);
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let signer = match object["spec"].text("signerName") {
            "" => "<none>",
            signer => signer,
        };
        vec![json!(object["metadata"].text("name")), json!(signer), age::of(object, now)]
    }
}

/// T1: the certificates of a bundle, each as one block of PEM, in the order in which they stand.
pub fn certificates(bundle: &str) -> Result<Vec<String>, String> {
    let (mut found, mut seen, mut rest) = (Vec::new(), BTreeSet::new(), bundle);
    while let Some(at) = rest.find("-----BEGIN ") {
        rest = &rest[at..];
        let Some(inner) = rest.strip_prefix(BEGIN) else {
            return Err("entry has bad block type: only CERTIFICATE is allowed".to_owned());
        };
        let Some((text, after)) = inner.split_once(END) else {
            return Err("a block of PEM does not end".to_owned());
        };
        let base64: String = text.chars().filter(|char| !char.is_ascii_whitespace()).collect();
        let bytes = base64::engine::general_purpose::STANDARD.decode(&base64);
        let bytes = bytes.map_err(|error| format!("a certificate is not base64, or has headers: {error}"))?;
        // Every certificate is a sequence of ASN.1.
        if bytes.first() != Some(&0x30) {
            return Err("a block is no certificate".to_owned());
        }
        if !seen.insert(bytes) {
            return Err("duplicate trust anchor".to_owned());
        }
        let lines: Vec<&str> = (0..base64.len()).step_by(64).map(|at| &base64[at..base64.len().min(at + 64)]).collect();
        found.push(format!("{BEGIN}\n{}\n{END}\n", lines.join("\n")));
        rest = after;
    }
    if found.is_empty() {
        return Err("at least one trust anchor must be provided".to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{ClusterTrustBundle, certificates};
    use crate::resources::fixture::{check, check_update};
    use serde_json::json;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

    #[test]
    fn t1_a_bundle_is_certificates_each_once() {
        let two = format!("a comment\n{ONE}-----BEGIN CERTIFICATE-----\nMAEC\n-----END CERTIFICATE-----");
        assert_eq!(certificates(&two).expect("good").len(), 2);
        for (bundle, why) in [
            (String::new(), "at least one"),
            ("text".to_owned(), "at least one"),
            (ONE.repeat(2), "duplicate"),
            (ONE.replace("CERTIFICATE", "PRIVATE KEY"), "bad block type"),
            (ONE.replace("MAA=", "Proc-Type: 4\n\nMAA="), "not base64"),
            (ONE.replace("MAA=", "AAAA"), "no certificate"),
            ("-----BEGIN CERTIFICATE-----\nMAA=".to_owned(), "does not end"),
        ] {
            let found = certificates(&bundle).expect_err(why);
            assert!(found.contains(why), "{bundle:?}: {found}");
        }
    }

    #[test]
    fn t2_t3_the_name_is_the_signers_and_the_signer_stays() {
        let of = |name: &str, signer: &str| json!({"metadata": {"name": name}, "spec": {"signerName": signer, "trustBundle": ONE}});
        check(&ClusterTrustBundle, of("plain", ""), &[]);
        check(&ClusterTrustBundle, of("example.com:ca:one", "example.com/ca"), &[]);
        check(&ClusterTrustBundle, of("a:b", ""), &["metadata.name: Invalid value: \"a:b\""]);
        check(&ClusterTrustBundle, of("one", "example.com/ca"), &["metadata.name: Invalid value: \"one\""]);
        let (old, new) = (of("example.com:ca:x", "example.com/ca"), of("example.com:ca:x", ""));
        check_update(&ClusterTrustBundle, &new, &old, &["spec.signerName: Invalid value"]);
    }
}
