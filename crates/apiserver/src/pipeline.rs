//! The one way in: every request, from whatever transport, passes these steps in this order.
//!
//!   1 request       path and verb (`request`)
//!   2 authenticate  by the transport: a certificate, or the part of this process that asks; by a bearer token
//!                   (`authenticate`); as whom somebody acts (`impersonate`)
//!   3 authorize     may this identity do this (`authorize`)
//!   4 lanes         is there room (`lanes`)
//!   5 decode        the body, bounded and checked (`decode`)
//!   6 verb          admit → default → validate → merge → commit (`create`, `change`, `delete`), a read, or a `review`
//!   7 answer        the form the client accepts (`form`, `answer`)
//!
//! A refusal anywhere becomes a Status (`failure`); a panic becomes a 500 and a log line, and ends only its request.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, request::Parts};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;
use windlass_api::handover::AsObjects;
use windlass_api::{ApiError, Reason, Subresource, Verbs, kinds};
use windlass_stdx::{Body, Request, Response, body_empty, body_from};

use crate::aggregate;
use crate::answer::{Answer, json_response};
use crate::audit::Record;
use crate::authenticate;
use crate::authorize::{authorize, may_see_unknown_paths, refuse_path};
use crate::backup;
use crate::component;
use crate::config::REQUEST_TIME_MAX;
use crate::create::create;
use crate::decode;
use crate::delete::{DeleteOptions, delete, delete_collection};
use crate::documents;
use crate::failure::refuse;
use crate::form::{self, Form};
use crate::get::get;
use crate::health::{self, Health};
use crate::identity::Identity;
use crate::impersonate::impersonate;
use crate::join;
use crate::lanes::Permit;
use crate::list::list;
use crate::metrics::{self, Labels};
use crate::request::{self, Endpoint, Query, Route, Verb};
use crate::review;
use crate::server::{Call, Server, Warned};
use crate::sub::{self, binding, eviction, proxy, scale, stream};
use crate::token;
use crate::update::{patch, update};
use crate::usage;
use crate::watch::watch;

/// Answers a request of `who`.
pub(crate) async fn answer(server: &Arc<Server>, who: &Identity, request: Request) -> Response {
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    let record = Record::begin(server.config.audit.as_ref(), &server.world, &parts);
    let mut labels = None;
    let noted = (&mut labels, &record);
    let answered = AssertUnwindSafe(route(server, who, &mut parts, body, noted)).catch_unwind().await;
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            record.failed(&error, &parts.method, &parts.uri);
            refuse(&error, form::of_refusal(&parts.headers))
        }
        Err(panic) => {
            server.metrics.panic();
            record.panicked();
            let why = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
            tracing::error!(method = %parts.method, path = %parts.uri.path(), why, "a request panicked");
            let error = ApiError::internal("the request could not be served because of a fault in the server");
            refuse(&error, Form::Json)
        }
    };
    if parts.method == Method::HEAD {
        *response.body_mut() = body_empty();
    }
    let labels = labels.unwrap_or_else(|| Labels::of(None, false));
    let goes_on = labels.is_long_running() && response.status().is_success();
    server.metrics.request(labels, response.status().as_u16(), started.elapsed());
    record.complete(response, goes_on)
}

/// Steps 1 to 4, then where the path leads.
async fn route(
    server: &Arc<Server>,
    who: &Identity,
    parts: &mut Parts,
    body: Body,
    (labels, record): (&mut Option<Labels>, &Record),
) -> Result<Response, ApiError> {
    let proven = authenticate::request(server, who, &mut parts.headers)?;
    record.proven(&proven);
    let impersonated = impersonate(server, &proven, &mut parts.headers)?;
    let who = impersonated.as_ref().unwrap_or(&proven);
    let served = server.served();
    let found = Query::parse(&parts.uri).and_then(|query| {
        request::parse(&served.registry, &parts.method, &parts.uri, &query).map(|route| (query, route))
    });
    let (query, route) = match found {
        Ok(found) => found,
        Err(error) if error.reason == Reason::NotFound && may_see_unknown_paths(who) => {
            let path = parts.uri.path();
            if aggregate::of_path(server, path).is_some() {
                let route = Route::Endpoint(Endpoint::Apis);
                record.about((&proven, impersonated.as_ref()), &route, &parts.method, path);
            }
            return elsewhere(server, who, parts, body, error).await;
        }
        Err(_) if !may_see_unknown_paths(who) => {
            return Err(refuse_path(who, parts.method.as_str(), parts.uri.path()));
        }
        Err(error) => return Err(error),
    };
    *labels = Some(Labels::of(Some(&route), query.get("dryRun").is_some()));
    record.about((&proven, impersonated.as_ref()), &route, &parts.method, parts.uri.path());
    match authorize(server, who, &route, &query, (parts.method.as_str(), parts.uri.path())) {
        Ok(grounds) => record.decided(true, &grounds),
        Err(refusal) => {
            record.decided(false, &refusal.message);
            return Err(refusal);
        }
    }
    let upgrade = parts.extensions.remove::<OnUpgrade>().filter(|_| parts.headers.contains_key("upgrade"));
    match route {
        Route::Target(target) => {
            let warned = Warned::default();
            if let Some(deprecation) = &target.resource.deprecation {
                warned.add(deprecation.clone());
            }
            let headers = &parts.headers;
            let call = Call { server, who, target: &target, query: &query, headers, warned: &warned, record };
            if target.sub == Some(Subresource::Proxy) {
                let (_, tail) = request::split_proxied(parts.uri.path());
                let carried = proxy::carry(call, (parts, tail), body, upgrade).boxed().await?;
                let answer = Answer::ready(carried).warn(call.warned.take());
                return Ok(answer.into_response(Form::Json, &target, &server.world, headers));
            }
            let inside = parts.extensions.get::<AsObjects>().copied();
            serve_target(call, inside, body, upgrade).await
        }
        Route::Endpoint(endpoint) => {
            let served = serve_endpoint(server, (who, body), &endpoint, &parts.headers, &query);
            within_time(served.boxed()).await
        }
    }
}

/// A path that this server does not serve itself.
async fn elsewhere(
    server: &Arc<Server>,
    who: &Identity,
    parts: &mut Parts,
    body: Body,
    unknown: ApiError,
) -> Result<Response, ApiError> {
    let path = parts.uri.path();
    if let Some(api) = aggregate::of_path(server, path) {
        let upgrade = parts.extensions.remove::<OnUpgrade>().filter(|_| parts.headers.contains_key("upgrade"));
        return aggregate::serve(server, who, (&api, parts), (body, upgrade)).boxed().await;
    }
    let group = path.strip_prefix("/apis/").map(|group| group.trim_end_matches('/'));
    let group = group.and_then(|group| aggregate::documents::api_group(server, group, None)).ok_or(unknown)?;
    aggregate::by_path(server, who, &parts.method, path)?;
    Ok(json_response(http::StatusCode::OK, body_from(group.to_string())))
}

async fn within_time<T>(served: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    tokio::time::timeout(REQUEST_TIME_MAX, served).await.unwrap_or_else(|_| {
        Err(ApiError::new(
            Reason::Timeout,
            format!(
                "the request was not finished within {REQUEST_TIME_MAX:?}; it may or may not have been carried out"
            ),
        ))
    })
}

async fn serve_target(
    call: Call<'_>,
    inside: Option<AsObjects>,
    body: Body,
    upgrade: Option<OnUpgrade>,
) -> Result<Response, ApiError> {
    let target = call.target;
    let form = match (target.sub, inside) {
        (None, Some(AsObjects { linked_only }))
            if matches!(target.verb, Verb::List | Verb::Watch) && target.resource.verbs != Verbs::ReadOnly =>
        {
            Form::Objects { linked_only }
        }
        (Some(Subresource::Log | Subresource::Exec | Subresource::Attach | Subresource::PortForward), _) => Form::Json,
        // An answer that is no object of the cluster has no table.
        _ if target.resource.verbs == Verbs::CreateOnly => form::negotiate_tree(call.headers)?,
        _ => form::negotiate(call.headers, call.query, &target.resource, target.verb == Verb::Watch)?,
    };
    // Watches and streams are bounded by themselves.
    let permit = match (target.verb, target.sub) {
        (Verb::Watch, _) => None,
        (_, Some(Subresource::Log | Subresource::Exec | Subresource::Attach | Subresource::PortForward)) => None,
        _ => Some((call.server.lanes.enter(call.who)?, call.server.metrics.inflight(target.verb))),
    };
    // Boxed: the verbs' futures differ much in size, and most requests are small ones.
    let mut answer = within_time(verb(call, form, body, upgrade).boxed()).await?;
    answer.warnings.extend(call.warned.take());
    call.record.answered(&answer.payload);
    drop(permit);
    Ok(answer.into_response(form, target, &call.server.world, call.headers))
}

/// Step 6.
async fn verb(call: Call<'_>, form: Form, body: Body, upgrade: Option<OnUpgrade>) -> Result<Answer, ApiError> {
    use Subresource::{Attach, Binding, Eviction, Exec, Log, PortForward, Scale, Token};
    match (call.target.verb, call.target.sub) {
        (_, Some(sub @ (Log | Exec | Attach | PortForward))) => stream::stream(call, sub, upgrade).boxed().await,
        (Verb::Get, Some(Scale)) => scale::get(call).await,
        (verb, _) if call.target.resource.verbs == Verbs::ReadOnly => {
            match (verb, call.target.resource.kind == kinds::COMPONENT_STATUS) {
                (Verb::Get, true) => component::get(call).await,
                (_, true) => component::list(call).await,
                (Verb::Get, false) => usage::get(call).boxed().await,
                (_, false) => usage::list(call).boxed().await,
            }
        }
        (Verb::Get, _) => get(call).await,
        (Verb::List, _) => list(call, form).await,
        (Verb::Watch, _) => watch(call, form).await,
        (Verb::Create, Some(Binding)) => binding::create(call, &take(call, body).await?.bytes).await,
        (Verb::Create, Some(Token)) => sub::token::create(call, &take(call, body).await?.bytes).await,
        (Verb::Create, Some(Eviction)) => eviction::create(call, &take(call, body).await?.bytes).await,
        (Verb::Create, _) => create_from(call, &take(call, body).await?.bytes).await,
        (Verb::Update, Some(Scale)) => scale::update(call, &take(call, body).await?.bytes).await,
        (Verb::Update, _) => update(call, &take(call, body).await?.bytes).await,
        (Verb::Patch, Some(Scale)) => scale::patch(call, &take(call, body).await?.bytes).await,
        (Verb::Patch, _) => patch(call, &take(call, body).await?.bytes).await,
        (Verb::Delete, _) => {
            let options = DeleteOptions::parse(call, &take(call, body).await?.bytes)?;
            delete(call, &options).await
        }
        (Verb::DeleteCollection, _) => {
            let options = DeleteOptions::parse(call, &take(call, body).await?.bytes)?;
            delete_collection(call, &options).await
        }
    }
}

/// A body, and its room in memory.
struct Taken {
    bytes: Bytes,
    _room: Option<Permit>,
}

/// Step 5: reads a body within its bounds.
async fn take(call: Call<'_>, body: Body) -> Result<Taken, ApiError> {
    let room = call.server.lanes.body(call.who, body.size_hint().upper())?;
    let bytes = decode::read(body).await?;
    call.record.sent(call.target, call.headers, &bytes);
    Ok(Taken { bytes, _room: room })
}

async fn create_from(call: Call<'_>, body: &Bytes) -> Result<Answer, ApiError> {
    let message = call.target.resource.message.get();
    let validation = decode::validation(call.query)?;
    let (object, warnings) = decode::decode(call.headers, body, message, validation)?;
    let answer = match call.target.resource.verbs {
        Verbs::CreateOnly if call.target.resource.kind == kinds::BINDING => binding::create_named(call, object).await?,
        Verbs::CreateOnly => review::answer(call, object).await?,
        Verbs::All | Verbs::ReadOnly => create(call, object).await?,
    };
    Ok(answer.warn(warnings))
}

async fn serve_endpoint(
    server: &Arc<Server>,
    (who, body): (&Identity, Body),
    endpoint: &Endpoint,
    headers: &HeaderMap,
    query: &Query,
) -> Result<Response, ApiError> {
    match endpoint {
        Endpoint::Livez(only) => health::answer(server, Health::Livez, only.as_deref(), query).await,
        Endpoint::Readyz(only) => health::answer(server, Health::Readyz, only.as_deref(), query).await,
        Endpoint::Healthz(only) => health::answer(server, Health::Healthz, only.as_deref(), query).await,
        Endpoint::Version => Ok(json_response(http::StatusCode::OK, body_from(health::version().to_string()))),
        Endpoint::Metrics => {
            let mut response = Response::new(body_from(metrics::text(server)));
            let media = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, media);
            Ok(response)
        }
        Endpoint::Starts(uid) => Ok(json_response(http::StatusCode::OK, body_from(server.starts.of(uid).to_string()))),
        Endpoint::Root | Endpoint::Api | Endpoint::Apis | Endpoint::Group(_) | Endpoint::GroupVersion(..) => {
            documents::discover(server, endpoint, headers)
        }
        Endpoint::OpenApi | Endpoint::OpenApiGroup(..) => documents::open_api(server, endpoint, headers, query),
        Endpoint::OpenApiV2 => documents::open_api_v2(server, headers),
        Endpoint::OpenIdConfiguration => {
            let address = server.config.advertise.map_or_else(|| "localhost".to_owned(), |address| address.to_string());
            let configuration = token::discovery(&address).to_string();
            Ok(json_response(http::StatusCode::OK, body_from(configuration)))
        }
        Endpoint::OpenIdKeys => {
            let mut response = Response::new(body_from(server.tokens.key_set().to_string()));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
            Ok(response)
        }
        Endpoint::Backup => backup::answer(server),
        Endpoint::Join => {
            let answer = join::join(server, who, body).await?;
            Ok(json_response(http::StatusCode::OK, body_from(answer.to_string())))
        }
    }
}
