//! `proxy`: requests carried to what pods, services and nodes serve.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use http::{HeaderMap, Method, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use windlass_apiserver::Identity;

use crate::{Api, PODS, SERVICES, pod, service};

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const NODES: &str = "/api/v1/nodes";

/// An address of this machine that does not mean the machine itself. Nothing is sent.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect("198.51.100.1:9").expect("this test needs a network interface with a route beside loopback");
    socket.local_addr().expect("an address").ip()
}

/// A server that answers with what it was asked, or redirects what asks for it.
async fn mirror() -> SocketAddr {
    let listener = TcpListener::bind((own_address(), 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let connection = hyper::server::conn::http1::Builder::new();
                // A client that goes away in between is no concern of this server.
                let _ended = connection.serve_connection(TokioIo::new(tcp), service_fn(answer)).await;
            });
        }
    });
    address
}

async fn answer(request: http::Request<Incoming>) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut response = Response::new(Full::default());
    if parts.uri.path() == "/moved" {
        *response.status_mut() = http::StatusCode::FOUND;
        response.headers_mut().insert("location", "/here?a=b".parse().expect("a header value"));
        return Ok(response);
    }
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let said = json!({
        "method": parts.method.as_str(), "uri": parts.uri.to_string(), "body": String::from_utf8_lossy(&body),
        "host": header("host"), "forwarded": header("x-forwarded-uri"), "authorization": header("authorization"),
        "own": header("x-own"),
    });
    response.headers_mut().insert("x-answer", "yes".parse().expect("a header value"));
    *response.body_mut() = Full::from(said.to_string());
    Ok(response)
}

/// A pod `p` at this address, and a service `s` in front of it.
async fn serving(address: SocketAddr) -> Api {
    let api = Api::start().await;
    let mut object = pod("p");
    object["spec"]["containers"][0]["ports"] = json!([{"name": "web", "containerPort": address.port()}]);
    api.make(PODS, &object).await;
    at(&api, address.ip()).await;
    let mut object = service("s");
    object["spec"]["ports"] = json!([{"name": "http", "port": 80}]);
    api.make(SERVICES, &object).await;
    let slice = json!({
        "metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}}, "addressType": "IPv4",
        "ports": [{"name": "http", "port": address.port()}],
        "endpoints": [{"addresses": [address.ip().to_string()], "conditions": {"ready": true}}],
    });
    api.make(SLICES, &slice).await;
    api
}

async fn at(api: &Api, address: IpAddr) {
    let status = json!({"status": {"podIP": address.to_string(), "podIPs": [{"ip": address.to_string()}]}});
    assert_eq!(api.merge(&format!("{PODS}/p/status"), &status).await.said(), "200");
}

#[tokio::test]
async fn x2_and_x3_pods_and_services_are_reached_by_every_method() {
    let address = mirror().await;
    let api = serving(address).await;
    let port = address.port();
    let names = [
        format!("{PODS}/p"),
        format!("{PODS}/p:{port}"),
        format!("{PODS}/http:p:web"),
        format!("{SERVICES}/s"),
        format!("{SERVICES}/s:80"),
        format!("{SERVICES}/http:s:http"),
    ];
    for name in names {
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
            let path = format!("{name}/proxy/a//b%2Fc/?x=1&y=%20");
            let reply = api.call(method.clone(), &path, "text/plain", "hello").await;
            assert_eq!(reply.code, 200, "{method} {path}");
            assert_eq!(reply.headers["x-answer"], "yes");
            let said = reply.json();
            assert_eq!((&said["method"], &said["body"]), (&json!(method.as_str()), &json!("hello")));
            assert_eq!(said["uri"], "/a//b%2Fc/?x=1&y=%20", "as it was sent");
            assert_eq!(said["host"], address.to_string());
            assert_eq!(said["forwarded"], format!("{name}/proxy"));
        }
        let head = api.call(Method::HEAD, &format!("{name}/proxy/a"), "", "").await;
        assert_eq!((head.code.as_u16(), head.body.len()), (200, 0));
    }
}

#[tokio::test]
async fn x5_nobody_is_led_to_the_machine_itself() {
    let api = serving(mirror().await).await;
    for address in ["127.0.0.1", "169.254.169.254", "0.0.0.0", "::1"] {
        at(&api, address.parse().expect("an address")).await;
        let reply = api.get(&format!("{PODS}/p:6443/proxy/")).await;
        assert_eq!(reply.said(), "400 BadRequest: address not allowed", "{address}");
    }
    let addresses = json!([{"type": "InternalIP", "address": "127.0.0.1"}]);
    let ports = json!({"kubeletEndpoint": {"Port": 10250}});
    api.make(NODES, &json!({"metadata": {"name": "n"}})).await;
    let status = json!({"status": {"addresses": addresses, "daemonEndpoints": ports}});
    assert_eq!(api.merge(&format!("{NODES}/n/status"), &status).await.said(), "200");
    assert_eq!(api.get(&format!("{NODES}/n:2379/proxy/")).await.said(), "400 BadRequest: address not allowed");
    let agent = api.get(&format!("{NODES}/n/proxy/metrics")).await;
    assert!(agent.said().starts_with("503 ServiceUnavailable: this server has no way to reach node agents"));
}

#[tokio::test]
async fn x6_redirects_lead_through_the_proxy() {
    let api = serving(mirror().await).await;
    let location = |headers: &HeaderMap| headers["location"].to_str().expect("text").to_owned();
    for name in [format!("{PODS}/p"), format!("{SERVICES}/s")] {
        let empty = api.get(&format!("{name}/proxy?a=b")).await;
        assert_eq!((empty.code.as_u16(), location(&empty.headers)), (301, format!("{name}/proxy/?a=b")));
        let moved = api.get(&format!("{name}/proxy/moved")).await;
        assert_eq!((moved.code.as_u16(), location(&moved.headers)), (302, format!("{name}/proxy/here?a=b")));
        let posted = api.call(Method::POST, &format!("{name}/proxy"), "text/plain", "x").await;
        assert_eq!(posted.json()["uri"], "/");
    }
}

#[tokio::test]
async fn what_cannot_be_reached_says_why() {
    let api = serving(mirror().await).await;
    for (path, said) in [
        (format!("{PODS}/none/proxy/"), "404 NotFound: pods \"none\" not found"),
        (format!("{PODS}/p:none/proxy/"), "400 BadRequest: no port \"none\" in pod \"p\""),
        (format!("{PODS}/ftp:p:21/proxy/"), "400 BadRequest: invalid pod request"),
        (format!("{SERVICES}/none/proxy/"), "404 NotFound: services \"none\" not found"),
        (format!("{SERVICES}/s:81/proxy/"), "503 ServiceUnavailable: no service port \"81\" found for service \"s\""),
        (format!("{PODS}/p:1/proxy/"), "503 ServiceUnavailable: error trying to reach service: "),
        (format!("{PODS}/https:p:/proxy/"), "503 ServiceUnavailable: error trying to reach service: "),
    ] {
        let found = api.get(&path).await.said();
        assert!(found.starts_with(said), "{path}: {found}");
    }
    api.delete(&format!("{SLICES}/s-1")).await;
    let found = api.get(&format!("{SERVICES}/s/proxy/")).await.said();
    assert_eq!(found, "503 ServiceUnavailable: no endpoints available for service \"s\"");
}

#[tokio::test]
async fn a_proxy_is_a_right_of_its_own() {
    let api = serving(mirror().await).await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let rules = json!([{"apiGroups": [""], "resources": ["pods", "services/proxy"], "verbs": ["get"]}]);
    api.make(&format!("{roles}/roles"), &json!({"metadata": {"name": "r"}, "rules": rules})).await;
    let subject = json!({"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"});
    let role = json!({"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"});
    let binding = json!({"metadata": {"name": "r"}, "subjects": [subject], "roleRef": role});
    api.make(&format!("{roles}/rolebindings"), &binding).await;
    let eve = || Identity::new("eve", []);
    for (method, path, code) in [
        (Method::GET, format!("{SERVICES}/s/proxy/"), 200),
        (Method::POST, format!("{SERVICES}/s/proxy/"), 403),
        (Method::GET, format!("{PODS}/p/proxy/"), 403),
    ] {
        let reply = api.call_as(eve(), method, &path, &[], "").await;
        assert_eq!(reply.code.as_u16(), code, "{path}: {}", reply.text());
        let said: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        assert!(code == 200 || said["message"].as_str().is_some_and(|text| text.contains("/proxy\"")), "{said}");
    }
}
