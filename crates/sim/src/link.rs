//! The links to the API: they delay, lose and break, as the weather is.
//!
//! Rules
//!   R1 lost request    it was never carried out; whoever sent it learns that the link broke
//!   R2 lost response   it was carried out, and whoever sent it learns the same
//!   R3 cut             who is cut off reaches nobody, and what was under way breaks
//!   R4 server gone     what was under way breaks; who calls then finds nobody there
//!   R5 dead caller     whoever is dead neither sends nor hears anything

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::watch;
use windlass_apiserver::{Apiserver, Identity};
use windlass_stdx::{Body, BoxError, Request, Response, Transport, TransportError, World};

use crate::history::History;
use crate::life::Life;

/// How long somebody who cannot reach the server tries, at least and at most.
const CONNECT_MS: (u64, u64) = (1_000, 3_000);
/// How long it takes until a lost message is noticed.
const NOTICE_MS: (u64, u64) = (50, 1_500);

/// How bad the links are. Chances are in a thousand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// The longest way of a message.
    pub delay_us_max: u64,
    /// How many requests get lost.
    pub requests_lost: u64,
    /// How many responses get lost.
    pub responses_lost: u64,
    /// How many pieces of a watch break it.
    pub watches_broken: u64,
}

impl Weather {
    /// Nothing gets lost.
    pub const FAIR: Weather = Weather { delay_us_max: 2_000, requests_lost: 0, responses_lost: 0, watches_broken: 0 };
    /// A little gets lost.
    pub const USUAL: Weather = Weather { delay_us_max: 8_000, requests_lost: 4, responses_lost: 4, watches_broken: 2 };
}

/// Everything that links parts to the server. Clones are the same network.
#[derive(Clone)]
pub struct Network {
    shared: Arc<Shared>,
}

struct Shared {
    world: World,
    history: History,
    weather: Mutex<Weather>,
    door: Mutex<Option<Door>>,
    cuts: Mutex<BTreeMap<String, watch::Sender<bool>>>,
}

/// Where the server is reached while it lives.
#[derive(Clone)]
pub struct Door {
    /// The server.
    pub apiserver: Apiserver,
    /// Its life.
    pub life: Life,
}

impl Network {
    /// A network without a server, in fair weather.
    pub fn new(world: World, history: History) -> Network {
        let shared = Shared {
            world,
            history,
            weather: Mutex::new(Weather::FAIR),
            door: Mutex::new(None),
            cuts: Mutex::default(),
        };
        Network { shared: Arc::new(shared) }
    }

    /// The server can be reached here, or nowhere.
    pub fn set_door(&self, door: Option<Door>) {
        *self.shared.door.lock().expect("nothing panics while holding it") = door;
    }

    /// Where the server can be reached now.
    pub fn door(&self) -> Option<Door> {
        let door = self.shared.door.lock().expect("nothing panics while holding it");
        door.clone().filter(|door| !door.life.is_over())
    }

    /// The weather changes.
    pub fn set_weather(&self, weather: Weather) {
        *self.shared.weather.lock().expect("nothing panics while holding it") = weather;
    }

    fn weather(&self) -> Weather {
        *self.shared.weather.lock().expect("nothing panics while holding it")
    }

    /// Cuts somebody off, or not any more.
    pub fn set_cut(&self, actor: &str, is_cut: bool) {
        self.cut_of(actor).send_replace(is_cut);
    }

    fn cut_of(&self, actor: &str) -> watch::Sender<bool> {
        let mut cuts = self.shared.cuts.lock().expect("nothing panics while holding it");
        cuts.entry(actor.to_owned()).or_insert_with(|| watch::Sender::new(false)).clone()
    }

    /// The link of somebody with this identity, for one life.
    pub fn link(&self, actor: &str, identity: Identity, life: &Life) -> Arc<dyn Transport> {
        let cut = self.cut_of(actor).subscribe();
        Arc::new(Link { network: self.clone(), actor: actor.into(), identity, life: life.clone(), cut })
    }

    async fn wait_ms(&self, (least, most): (u64, u64)) {
        tokio::time::sleep(Duration::from_millis(least + self.shared.world.random_below(most - least))).await;
    }

    async fn delay(&self) {
        let most = self.weather().delay_us_max;
        tokio::time::sleep(Duration::from_micros(self.shared.world.random_below(most + 1))).await;
    }

    fn chance(&self, of_thousand: u64) -> bool {
        of_thousand > 0 && self.shared.world.random_below(1000) < of_thousand
    }
}

#[derive(Clone)]
struct Link {
    network: Network,
    actor: Arc<str>,
    identity: Identity,
    life: Life,
    cut: watch::Receiver<bool>,
}

impl Transport for Link {
    fn call(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let link = self.clone();
        // R5.
        Box::pin(async move { link.life.clone().only_alive(link.exchange(request)).await })
    }
}

impl Link {
    async fn exchange(self, request: Request) -> Result<Response, TransportError> {
        let what = format!("{} {}", request.method(), request.uri());
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        // The one answer that holds randomness which is not the world's: a signature.
        let is_token = request.uri().path().ends_with("/token");
        let answer = self.carry(request, is_watch).await;
        let answer = answer.map(|response| if is_watch || is_token { response } else { self.whole(response) });
        match &answer {
            Ok(response) => self.note(format_args!("{what}: {}", response.status().as_u16())),
            Err(error) => self.note(format_args!("{what}: {error}{}", because(error))),
        }
        answer
    }

    fn note(&self, what: impl std::fmt::Display) {
        self.network.shared.history.note(&self.actor, what);
    }

    async fn carry(&self, mut request: Request, is_watch: bool) -> Result<Response, TransportError> {
        // What is no part of HTTP does not cross a link: the answer comes as bytes, which can be late or lost.
        request.extensions_mut().clear();
        let weather = self.network.weather();
        self.network.delay().await;
        if *self.cut.borrow() {
            self.network.wait_ms(CONNECT_MS).await;
            return Err(unreachable("no route"));
        }
        // R1.
        if self.network.chance(weather.requests_lost) {
            self.network.wait_ms(NOTICE_MS).await;
            return Err(broken("the request was lost"));
        }
        let Some(door) = self.network.door() else { return Err(unreachable("connection refused")) };
        let transport = door.apiserver.transport(self.identity.clone());
        let response = tokio::select! {
            biased;
            why = self.breaks(&door.life) => return Err(broken(why)),
            response = transport.call(request) => response?,
        };
        // R2.
        if self.network.chance(weather.responses_lost) {
            self.network.wait_ms(NOTICE_MS).await;
            return Err(broken("the response was lost"));
        }
        tokio::select! {
            biased;
            why = self.breaks(&door.life) => return Err(broken(why)),
            () = self.network.delay() => {}
        }
        Ok(if is_watch { self.carry_watch(response, door.life) } else { response })
    }

    /// Returns, with the reason, when this link breaks (R3, R4).
    async fn breaks(&self, server: &Life) -> &'static str {
        let mut cut = self.cut.clone();
        tokio::select! {
            biased;
            () = server.over() => "the server is gone",
            _ = cut.wait_for(|is_cut| *is_cut) => "the link is cut",
        }
    }

    fn whole(&self, response: Response) -> Response {
        let history = self.network.shared.history.clone();
        response.map(|body| {
            body.map_frame(move |frame| {
                frame.map_data(|bytes: Bytes| {
                    history.mix(&bytes);
                    bytes
                })
            })
            .boxed_unsync()
        })
    }

    /// A watch arrives piece by piece, each delayed, until it ends or the link does.
    fn carry_watch(&self, response: Response, server: Life) -> Response {
        let link = self.clone();
        response.map(|body| {
            let begin = Some((link, server, body));
            let pieces = stream::unfold(begin, |state| async move {
                let (link, server, body) = state?;
                let life = link.life.clone();
                life.only_alive(next_piece(link, server, body)).await
            });
            StreamBody::new(pieces).boxed_unsync()
        })
    }
}

type Watching = (Link, Life, Body);
type Piece = Result<Frame<Bytes>, BoxError>;

async fn next_piece(link: Link, server: Life, mut body: Body) -> Option<(Piece, Option<Watching>)> {
    let piece = tokio::select! {
        biased;
        why = link.breaks(&server) => Err(why),
        piece = async {
            let piece = body.frame().await;
            link.network.delay().await;
            piece
        } => Ok(piece),
    };
    let weather = link.network.weather();
    match piece {
        Err(why) => {
            link.note(format_args!("a watch broke: {why}"));
            Some((Err(why.into()), None))
        }
        Ok(None) => None,
        Ok(Some(_)) if link.network.chance(weather.watches_broken) => {
            link.note("a watch broke");
            Some((Err("a piece was lost".into()), None))
        }
        Ok(Some(piece)) => {
            if let Some(bytes) = piece.as_ref().ok().and_then(Frame::data_ref) {
                link.network.shared.history.mix(bytes);
            }
            Some((piece, Some((link, server, body))))
        }
    }
}

fn broken(why: &str) -> TransportError {
    TransportError::Broken(why.into())
}

fn unreachable(why: &str) -> TransportError {
    TransportError::Unreachable { address: "the server".to_owned(), source: why.into() }
}

fn because(error: &TransportError) -> String {
    std::error::Error::source(error).map(|source| format!(" ({source})")).unwrap_or_default()
}

/// The pipeline itself, for parts of the server's own process: nothing is lost, but it dies with the server (R5).
pub struct InProcess {
    /// The server's own transport.
    pub transport: Arc<dyn Transport>,
    /// The server's life.
    pub life: Life,
}

impl Transport for InProcess {
    fn call(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let (call, life) = (self.transport.call(request), self.life.clone());
        Box::pin(async move { life.only_alive(call).await })
    }
}
