//! Who the node agent is to those who connect, and who may connect.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The API server's name.
const APISERVER: &str = "system:apiserver";
/// The group of all nodes.
const NODES: &str = "system:nodes";
/// The group that may do everything.
const MASTERS: &str = "system:masters";

/// Why the server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Something given as PEM is none.
    #[error("the node agent's {what}: expected PEM, found something else")]
    Pem {
        /// `certificate`, `key`, `CA`.
        what: &'static str,
        /// What the reader said.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate, key and CA do not make a server.
    #[error("the node agent's certificate, key and CA cannot be used: {0}")]
    Tls(String),
}

/// The agent's serving certificate, its key, and the CA whose clients may connect; all PEM.
#[derive(Clone)]
pub struct ServerIdentity {
    /// The certificate.
    pub cert_pem: String,
    /// Its key.
    pub key_pem: String,
    /// The cluster's CA.
    pub ca_pem: String,
}

impl ServerIdentity {
    pub(super) fn to_tls(&self) -> Result<Arc<ServerConfig>, ServerError> {
        let pem = |what| move |source| ServerError::Pem { what, source };
        let unusable = |error: &dyn std::fmt::Display| ServerError::Tls(error.to_string());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(self.cert_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(pem("certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(pem("key"))?;
        let ca = CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).map_err(pem("CA"))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca).map_err(|error| unusable(&error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?
            .with_client_cert_verifier(clients.map_err(|error| unusable(&error))?)
            .with_single_cert(chain, key)
            .map_err(|error| unusable(&error))?;
        Ok(Arc::new(config))
    }
}

impl ServerIdentity {
    /// How this node speaks to others of its cluster.
    pub(crate) fn to_client_tls(&self) -> Result<Arc<ClientConfig>, ServerError> {
        let pem = |what| move |source| ServerError::Pem { what, source };
        let unusable = |error: rustls::Error| ServerError::Tls(error.to_string());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(self.cert_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(pem("certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(pem("key"))?;
        let ca = CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).map_err(pem("CA"))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca).map_err(unusable)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(unusable)?.with_root_certificates(roots);
        Ok(Arc::new(config.with_client_auth_cert(chain, key).map_err(unusable)?))
    }
}

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// The API server, or one of the masters.
    ApiServer,
    /// Another node of the cluster.
    Node,
    /// Somebody else.
    Stranger,
}

/// Who the client with this certificate (which the CA has signed) is.
pub(super) fn caller(chain: Option<&[CertificateDer<'_>]>) -> Caller {
    let Some(leaf) = chain.and_then(<[_]>::first) else { return Caller::Stranger };
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return Caller::Stranger };
    let subject = certificate.subject();
    let is_apiserver = subject.iter_common_name().any(|name| name.as_str() == Ok(APISERVER));
    let in_group = |wanted| subject.iter_organization().any(|group| group.as_str() == Ok(wanted));
    match (is_apiserver || in_group(MASTERS), in_group(NODES)) {
        (true, _) => Caller::ApiServer,
        (false, true) => Caller::Node,
        (false, false) => Caller::Stranger,
    }
}

#[cfg(test)]
mod tests {
    use super::{Caller, caller};
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    use rustls::pki_types::CertificateDer;

    fn certificate(name: &str, group: &str) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    #[test]
    fn the_api_server_masters_and_nodes_are_told_apart() {
        let rows = [
            ("system:apiserver", "x", Caller::ApiServer),
            ("system:windlass:apiserver", "system:masters", Caller::ApiServer),
            ("system:node:n1", "system:nodes", Caller::Node),
            ("alice", "developers", Caller::Stranger),
            ("system:masters", "system:apiserver", Caller::Stranger),
        ];
        for (name, group, expected) in rows {
            assert_eq!(caller(Some(&[certificate(name, group)])), expected, "{name} {group}");
        }
        assert_eq!(caller(None), Caller::Stranger);
    }
}
