//! sig-instrumentation: events.

mod event;

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!("Event, delete a collection", event::many_are_listed_and_deleted),
        case!("Event, manage lifecycle of an Event", event::an_event_lives),
    ]
}
