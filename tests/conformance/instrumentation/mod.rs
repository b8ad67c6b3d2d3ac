//! sig-instrumentation: events, in both groups that serve them.

mod event;

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!("Event, delete a collection", event::many_are_listed_and_deleted),
        case!("Event, manage lifecycle of an Event", event::an_event_lives),
        case!("New Event resource lifecycle, testing a list of events", event::many_new_are_listed_and_deleted),
        case!("New Event resource lifecycle, testing a single event", event::a_new_event_lives),
    ]
}
