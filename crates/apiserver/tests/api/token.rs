//! Service account tokens: what they prove, for how long, and how pods come by them.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Method;
use serde_json::{Value, json};
use windlass_apiserver::Identity;

use crate::{Api, PODS, bind, pod};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

async fn request(api: &Api, account: &str, spec: Value) -> (String, Value) {
    let reply = api.post(&format!("{ACCOUNTS}/{account}/token"), &json!({ "spec": spec })).await;
    (reply.said(), reply.json())
}

async fn token(api: &Api, account: &str, spec: Value) -> String {
    let (said, answer) = request(api, account, spec).await;
    assert_eq!(said, "201", "{answer}");
    answer["status"]["token"].as_str().expect("a token").to_owned()
}

/// Asks for something that every known user may read, as whoever has this token.
async fn code(api: &Api, token: &str) -> u16 {
    let proof = format!("Bearer {token}");
    api.call_as(Identity::anonymous(), Method::GET, "/api", &[("authorization", &proof)], "").await.code.as_u16()
}

async fn review(api: &Api, token: &str, audiences: Value) -> Value {
    let spec = json!({"spec": {"token": token, "audiences": audiences}});
    api.make(REVIEWS, &spec).await["status"].clone()
}

fn bound_to(kind: &str, name: &str) -> Value {
    json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name}})
}

async fn make_account(api: &Api, name: &str) -> Value {
    api.make(ACCOUNTS, &json!({"metadata": {"name": name}})).await
}

#[tokio::test]
async fn a_token_is_made_and_reviewed() {
    let api = Api::start().await;
    let account = make_account(&api, "bot").await;
    let (_, answer) = request(&api, "bot", json!({"expirationSeconds": 3600})).await;
    assert_eq!((&answer["spec"]["audiences"], &answer["spec"]["expirationSeconds"]), (&json!([ISSUER]), &json!(3600)));
    assert!(answer["status"]["expirationTimestamp"].is_string(), "{answer}");
    let token = answer["status"]["token"].as_str().expect("a token");
    let status = review(&api, token, json!([])).await;
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!([ISSUER])));
    let user = &status["user"];
    assert_eq!(user["username"], "system:serviceaccount:default:bot");
    assert_eq!(user["uid"], account["metadata"]["uid"]);
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]);
    assert_eq!(user["groups"], groups);
    assert!(
        user["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().expect("an id").starts_with("JTI=")
    );
    let wrong = review(&api, "abc", json!([])).await;
    assert_eq!((&wrong["authenticated"], &wrong["user"]), (&Value::Null, &json!({})));
    assert!(wrong["error"].as_str().expect("why").contains("invalid bearer token"));
    assert_eq!(api.post(REVIEWS, &json!({"spec": {}})).await.code, 400);
}

#[tokio::test]
async fn a_token_lets_its_account_do_what_it_may() {
    let api = Api::start().await;
    make_account(&api, "bot").await;
    let token = token(&api, "bot", json!({})).await;
    let proof = format!("Bearer {token}");
    let headers = [("authorization", proof.as_str()), ("content-type", "application/json")];
    let refused = api.call_as(Identity::anonymous(), Method::GET, PODS, &headers, "").await.said();
    assert!(refused.contains("User \"system:serviceaccount:default:bot\" cannot list resource \"pods\""), "{refused}");
    let binding = json!({"metadata": {"name": "bot"}, "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "bot", "namespace": "default"}]});
    api.make("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", &binding).await;
    assert_eq!(api.call_as(Identity::anonymous(), Method::GET, PODS, &headers, "").await.said(), "200");
    let twice = [("authorization", proof.as_str()), ("authorization", proof.as_str())];
    assert_eq!(api.call_as(Identity::anonymous(), Method::GET, PODS, &twice, "").await.code, 401);
    let own = api.call_as(
        Identity::anonymous(),
        Method::POST,
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        &headers,
        "{}",
    );
    assert_eq!(own.await.json()["status"]["userInfo"]["username"], "system:serviceaccount:default:bot");
}

#[tokio::test]
async fn a_token_is_for_its_audience() {
    let api = Api::start().await;
    let token = token(&api, "default", json!({"audiences": ["vault", "store"]})).await;
    assert_eq!(code(&api, &token).await, 401);
    let status = review(&api, &token, json!(["other", "vault"])).await;
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!(["vault"])));
    assert_eq!(review(&api, &token, json!([])).await["authenticated"], Value::Null);
}

#[tokio::test]
async fn a31_a_token_ends_with_what_it_is_bound_to() {
    let api = Api::start().await;
    make_account(&api, "bot").await;
    let mut of_bot = pod("p");
    of_bot["spec"]["serviceAccountName"] = json!("bot");
    let made = api.make(PODS, &of_bot).await;
    api.make(SECRETS, &json!({"metadata": {"name": "s"}})).await;
    api.make("/api/v1/nodes", &json!({"metadata": {"name": "n"}})).await;
    let bindings = [
        ("Pod", "p", format!("{PODS}/p?gracePeriodSeconds=0")),
        ("Secret", "s", format!("{SECRETS}/s")),
        ("Node", "n", "/api/v1/nodes/n".to_owned()),
    ];
    let unbound = token(&api, "bot", json!({})).await;
    for (kind, name, path) in bindings {
        let bound = token(&api, "bot", bound_to(kind, name)).await;
        assert_eq!(code(&api, &bound).await, 200, "{kind}");
        if kind == "Pod" {
            let extra = review(&api, &bound, json!([])).await["user"]["extra"].clone();
            assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["p"]));
            assert_eq!(extra["authentication.kubernetes.io/pod-uid"], json!([made["metadata"]["uid"]]));
        }
        assert_eq!(api.delete(&path).await.code, 200, "{kind}");
        assert_eq!(code(&api, &bound).await, 401, "{kind}");
        assert_eq!(code(&api, &unbound).await, 200, "{kind}");
    }
    api.make(PODS, &of_bot).await;
    assert_eq!(api.delete(&format!("{ACCOUNTS}/bot")).await.code, 200);
    assert_eq!(code(&api, &unbound).await, 401);
    make_account(&api, "bot").await;
    assert_eq!(code(&api, &unbound).await, 401, "a namesake is somebody else");
}

#[tokio::test]
async fn a_token_is_asked_for_in_good_order() {
    let api = Api::start().await;
    make_account(&api, "bot").await;
    api.make(PODS, &pod("p")).await;
    for (account, spec, said) in [
        ("gone", json!({}), "404 NotFound: serviceaccounts \"gone\" not found"),
        (
            "bot",
            json!({"expirationSeconds": 10}),
            "422 Invalid: TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 10: may \
             not specify a duration less than 10 minutes",
        ),
        ("bot", bound_to("Pod", "gone"), "404 NotFound: pods \"gone\" not found"),
        (
            "bot",
            bound_to("Pod", "p"),
            "400 BadRequest: cannot bind token for serviceaccount \"bot\" to pod running with different serviceaccount name.",
        ),
        ("bot", bound_to("ConfigMap", "p"), "400 BadRequest: cannot bind token for object of type v1, Kind=ConfigMap"),
    ] {
        assert_eq!(request(&api, account, spec).await.0, said);
    }
    let mut of_another = bound_to("Pod", "p");
    of_another["boundObjectRef"]["uid"] = json!("x");
    assert!(request(&api, "default", of_another).await.0.starts_with("409"));
}

#[tokio::test]
async fn a_secret_of_the_tokens_type_holds_one() {
    let api = Api::start().await;
    make_account(&api, "bot").await;
    let secret = json!({"metadata": {"name": "long", "annotations": {"kubernetes.io/service-account.name": "bot"}},
        "type": "kubernetes.io/service-account-token"});
    let made = api.make(SECRETS, &secret).await;
    let text = |key: &str| STANDARD.decode(made["data"][key].as_str().unwrap_or_default()).expect("base64");
    assert_eq!(text("namespace"), b"default");
    let token = String::from_utf8(text("token")).expect("a token is ASCII");
    assert_eq!(code(&api, &token).await, 200);
    assert_eq!(api.delete(&format!("{SECRETS}/long")).await.code, 200);
    assert_eq!(code(&api, &token).await, 401);
}

#[tokio::test]
async fn pods_come_by_the_token_of_their_account() {
    let api = Api::start().await;
    let automount = |word: Option<bool>| word.map_or(json!({}), |word| json!({"automountServiceAccountToken": word}));
    for (name, word) in [("unsaid", None), ("yes", Some(true)), ("no", Some(false))] {
        let mut account = automount(word);
        account["metadata"] = json!({"name": name});
        account["imagePullSecrets"] = json!([{"name": "pull"}]);
        api.make(ACCOUNTS, &account).await;
    }
    for (of_pod, of_account, mounted) in [
        (None, "unsaid", true),
        (None, "yes", true),
        (None, "no", false),
        (Some(true), "unsaid", true),
        (Some(true), "yes", true),
        (Some(true), "no", true),
        (Some(false), "unsaid", false),
        (Some(false), "yes", false),
        (Some(false), "no", false),
    ] {
        let mut wished = pod("p");
        wished["metadata"] = json!({"generateName": "p-"});
        wished["spec"]["serviceAccountName"] = json!(of_account);
        if let Some(word) = of_pod {
            wished["spec"]["automountServiceAccountToken"] = json!(word);
        }
        let spec = api.make(PODS, &wished).await["spec"].clone();
        let mounts = spec["containers"][0]["volumeMounts"].as_array().map_or(0, Vec::len);
        assert_eq!(mounts == 1, mounted, "{of_pod:?} {of_account}: {spec}");
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "pull"}]));
        if mounted {
            let name = spec["volumes"][0]["name"].as_str().expect("a volume has a name");
            assert!(name.starts_with("kube-api-access-") && name.len() == 21, "{name}");
            assert_eq!(spec["volumes"][0]["projected"]["sources"].as_array().map(Vec::len), Some(3));
        }
    }
    let mut of_nobody = pod("p");
    of_nobody["spec"]["serviceAccountName"] = json!("gone");
    assert_eq!(
        api.post(PODS, &of_nobody).await.said(),
        "403 Forbidden: pods \"p\" is forbidden: error looking up service account default/gone: serviceaccount \"gone\" not \
         found"
    );
}

#[tokio::test]
async fn a_pod_waits_a_little_for_the_account_of_a_new_namespace() {
    let api = Api::start().await;
    api.make("/api/v1/namespaces", &json!({"metadata": {"name": "new"}})).await;
    let body = pod("p").to_string();
    let waiting = api.call(Method::POST, "/api/v1/namespaces/new/pods", "application/json", body);
    let account = json!({"metadata": {"name": "default"}});
    let made = api.post("/api/v1/namespaces/new/serviceaccounts", &account);
    let (pod, account) = tokio::join!(waiting, made);
    assert_eq!((pod.said(), account.said()), ("201".to_owned(), "201".to_owned()));
}

#[tokio::test]
async fn accounts_find_out_how_tokens_are_checked() {
    let api = Api::start().await;
    let token = token(&api, "default", json!({})).await;
    let bot = Identity::new("system:serviceaccount:default:bot", ["system:serviceaccounts".to_owned()]);
    let get = async |path: &str| api.call_as(bot.clone(), Method::GET, path, &[], "").await;
    let configuration = get("/.well-known/openid-configuration").await.json();
    assert_eq!(
        (&configuration["issuer"], &configuration["response_types_supported"]),
        (&json!(ISSUER), &json!(["id_token"]))
    );
    let keys = get("/openid/v1/jwks").await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    let head: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').next().expect("a header")).expect("base64"))
            .expect("JSON");
    let key = &keys.json()["keys"][0];
    assert_eq!((&key["kid"], &key["alg"], &key["crv"]), (&head["kid"], &json!("ES256"), &json!("P-256")));
    // Who knows nothing but the key that is published verifies a token, and finds out a forged one.
    let point = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().expect("a coordinate")).expect("base64");
    let public = [vec![4], point("x"), point("y")].concat();
    let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, public);
    let (said, signature) = token.rsplit_once('.').expect("three parts");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
    assert!(public.verify(said.as_bytes(), &signature).is_ok(), "{token} is not signed by {key}");
    let forged = said.replacen('.', ".e30", 1);
    assert!(public.verify(forged.as_bytes(), &signature).is_err());
    let stranger = api.call_as(Identity::anonymous(), Method::GET, "/openid/v1/jwks", &[], "").await;
    assert_eq!(stranger.code, 403);
}

#[tokio::test]
async fn a35_a_node_gets_tokens_of_its_own_pods_only() {
    let api = Api::start().await;
    for (name, node) in [("mine", "n1"), ("theirs", "n2")] {
        let mut wished = pod(name);
        wished["spec"]["serviceAccountName"] = json!(name);
        make_account(&api, name).await;
        api.make(PODS, &wished).await;
        bind(&api, name, node).await;
    }
    let uid = async |name: &str| api.get(&format!("{PODS}/{name}")).await.json()["metadata"]["uid"].clone();
    let (mine, theirs) = (uid("mine").await, uid("theirs").await);
    let bound = |name: &str, uid: &Value| json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}}});
    for (account, body, code) in [
        ("mine", bound("mine", &mine), 201),
        ("mine", bound("mine", &json!("")), 403),
        ("mine", json!({"spec": {}}), 403),
        ("mine", bound("theirs", &theirs), 403),
        ("theirs", bound("theirs", &theirs), 403),
        ("default", bound("mine", &mine), 403),
    ] {
        let path = format!("{ACCOUNTS}/{account}/token");
        let headers = [("content-type", "application/json")];
        let reply = api.call_as(Identity::node("n1"), Method::POST, &path, &headers, body.to_string()).await;
        assert_eq!(reply.code, code, "{account} {body}: {}", reply.said());
    }
}
