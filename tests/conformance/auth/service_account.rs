//! Service accounts, their tokens, and what reviews say.

use http::Method;
use serde_json::{Value, json};

use crate::Test;
use crate::api::{JSON, MERGE};

pub async fn every_namespace_keeps_the_root_certificate(test: &Test) {
    let path = format!("{}/kube-root-ca.crt", test.path("v1", "configmaps"));
    let certificate =
        |reply: &crate::api::Reply| reply.json()["data"]["ca.crt"].as_str().unwrap_or_default().to_owned();
    let made = test.api.until(&path, "made", |reply| !certificate(reply).is_empty()).await;
    let (ours, uid) = (certificate(&made), made.json()["metadata"]["uid"].clone());
    test.api.delete(&path).await.ok();
    test.api.until(&path, "made anew", |reply| reply.code == 200 && reply.json()["metadata"]["uid"] != uid).await;
    test.api.patch(&path, MERGE, &json!({"data": {"ca.crt": "another"}})).await.ok();
    test.api.until(&path, "as it was", |reply| certificate(reply) == ours).await;
}

pub async fn tokens_are_mounted_unless_somebody_declines(test: &Test) {
    let accounts = test.path("v1", "serviceaccounts");
    let words = [None, Some(true), Some(false)];
    let said = |mut object: Value, word: Option<bool>| {
        if let Some(word) = word {
            object["automountServiceAccountToken"] = json!(word);
        }
        object
    };
    for (at, word) in words.into_iter().enumerate() {
        let account = said(json!({"metadata": {"name": format!("account-{at}")}}), word);
        test.api.create(&accounts, &account).await.ok();
    }
    for of_pod in words {
        for (at, of_account) in words.into_iter().enumerate() {
            let spec = json!({"serviceAccountName": format!("account-{at}"), "nodeSelector": {"no": "node"},
                "containers": [{"name": "c", "image": "none:1"}]});
            let pod = json!({"metadata": {"generateName": "p-"}, "spec": said(spec, of_pod)});
            let made = test.api.create(&test.path("v1", "pods"), &pod).await.ok();
            let mounts = made["spec"]["containers"][0]["volumeMounts"].as_array().cloned().unwrap_or_default();
            let path = "/var/run/secrets/kubernetes.io/serviceaccount";
            let is_mounted = mounts.iter().any(|mount| mount["mountPath"] == path);
            let wanted = of_pod.or(of_account).unwrap_or(true);
            assert_eq!(is_mounted, wanted, "the pod says {of_pod:?}, the account {of_account:?}");
        }
    }
}

pub async fn an_account_lives(test: &Test) {
    let path = test.path("v1", "serviceaccounts");
    let mut events = test.api.watch(&path, "labelSelector=test%3Dlife").await;
    let account = json!({"metadata": {"name": "life", "labels": {"test": "life"}}});
    test.api.create(&path, &account).await.ok();
    assert_eq!(events.expect("ADDED").await["metadata"]["name"], "life");
    let one = format!("{path}/life");
    let patch = json!({"automountServiceAccountToken": false});
    assert_eq!(test.api.patch(&one, MERGE, &patch).await.ok()["automountServiceAccountToken"], false);
    assert_eq!(events.expect("MODIFIED").await["automountServiceAccountToken"], false);
    let listed = test.api.get("/api/v1/serviceaccounts?labelSelector=test%3Dlife").await.ok();
    let own = |item: &&Value| item["metadata"]["namespace"] == test.namespace.as_str();
    let found = listed["items"].as_array().expect("a list").iter().find(own).expect("the account is listed");
    assert_eq!(found["automountServiceAccountToken"], false);
    test.api.delete(&one).await.ok();
    events.expect("DELETED").await;
}

pub async fn an_account_is_updated(test: &Test) {
    let path = test.path("v1", "serviceaccounts");
    let mut account = test.api.create(&path, &json!({"metadata": {"name": "updated"}})).await.ok();
    account["automountServiceAccountToken"] = json!(true);
    test.api.update(&format!("{path}/updated"), &account).await.ok();
    let found = test.api.get(&format!("{path}/updated")).await.ok();
    assert_eq!(found["automountServiceAccountToken"], true);
}

pub async fn a_token_is_reviewed(test: &Test) {
    let path = test.path("v1", "serviceaccounts");
    let account = test.api.create(&path, &json!({"metadata": {"name": "bot"}})).await.ok();
    let request = json!({"spec": {"expirationSeconds": 3600}});
    let answer = test.api.create(&format!("{path}/bot/token"), &request).await.ok();
    let token = answer["status"]["token"].as_str().filter(|token| !token.is_empty()).expect("a token");
    let review = json!({"spec": {"token": token}});
    let answer = test.api.create("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.ok();
    let status = &answer["status"];
    assert_eq!((&status["authenticated"], &status["error"]), (&json!(true), &Value::Null), "{status}");
    let name = format!("system:serviceaccount:{}:bot", test.namespace);
    assert_eq!((&status["user"]["username"], &status["user"]["uid"]), (&json!(name), &account["metadata"]["uid"]));
}

pub async fn reviews_say_what_requests_meet(test: &Test) {
    let accounts = test.path("v1", "serviceaccounts");
    test.api.create(&accounts, &json!({"metadata": {"name": "bot"}})).await.ok();
    let user = format!("system:serviceaccount:{}:bot", test.namespace);
    let asked = json!({"namespace": test.namespace, "verb": "list", "resource": "configmaps"});
    let review = json!({"spec": {"user": user, "resourceAttributes": asked}});
    let bindings = test.path("rbac.authorization.k8s.io/v1", "rolebindings");
    let binding = json!({"metadata": {"name": "bot"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "bot", "namespace": test.namespace}]});
    for allowed in [false, true] {
        if allowed {
            test.api.create(&bindings, &binding).await.ok();
        }
        let headers = [("impersonate-user", user.as_str()), ("content-type", JSON)];
        let met = test.api.call(Method::GET, &test.path("v1", "configmaps"), &headers, "").await;
        assert_eq!(met.code == 200, allowed, "{}", met.code);
        let local = test.path("authorization.k8s.io/v1", "localsubjectaccessreviews");
        for path in ["/apis/authorization.k8s.io/v1/subjectaccessreviews", local.as_str()] {
            let answer = test.api.create(path, &review).await.ok();
            assert_eq!(answer["status"]["allowed"], json!(allowed), "{path}: {answer}");
        }
    }
}
