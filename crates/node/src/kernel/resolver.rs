//! The machine's DNS server, begun again as long as somebody else holds its port: pods run without names meanwhile.

use std::sync::Mutex;

use windlass_network::{DnsConfig, DnsServer, DnsTable};
use windlass_stdx::World;

/// The server, or what is needed to begin it.
pub(super) struct Resolver {
    config: DnsConfig,
    world: World,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    server: Option<DnsServer>,
    /// What was asked for while there was no server.
    waiting: Option<DnsTable>,
    /// It was said already that there is none.
    is_told: bool,
}

impl Resolver {
    /// Nothing is begun yet.
    pub(super) fn new(config: DnsConfig, world: World) -> Resolver {
        Resolver { config, world, state: Mutex::default() }
    }

    /// Begins the server if there is none. Costs nothing when there is one.
    pub(super) fn ensure(&self) {
        let mut state = self.state.lock().expect("nothing panics while holding it");
        if state.server.is_some() {
            return;
        }
        match DnsServer::start(self.config.clone(), self.world.clone()) {
            Ok(server) => {
                if let Some(names) = state.waiting.take() {
                    server.replace(&names);
                }
                state.server = Some(server);
            }
            Err(error) if !state.is_told => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "pods find no names; it is tried again every few seconds");
                state.is_told = true;
            }
            Err(_) => {}
        }
    }

    /// From now on these are the names.
    pub(super) fn replace(&self, names: &DnsTable) {
        let mut state = self.state.lock().expect("nothing panics while holding it");
        match &state.server {
            Some(server) => server.replace(names),
            None => state.waiting = Some(names.clone()),
        }
    }
}
