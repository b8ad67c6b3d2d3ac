//! How a verb that failed says so: kubectl's words, and the exit code.

use std::process::ExitCode;

use windlass_api::error::Details;
use windlass_client::ClientError;
use windlass_stdx::TransportError;

use super::output::escape;

/// A verb that ends with a code of its own and has said what there is to say: a command in a container.
#[derive(Debug, thiserror::Error)]
#[error("ended with code {0}")]
pub struct Exit(pub u8);

/// Several things went wrong; each has been said.
#[derive(Debug, thiserror::Error)]
#[error("some of it failed")]
pub struct Said;

/// Says what went wrong, unless that is done, and gives the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(Exit(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    if error.downcast_ref::<Said>().is_none() {
        say(error);
    }
    ExitCode::FAILURE
}

/// Says what went wrong.
pub fn say(error: &anyhow::Error) {
    eprintln!("{}", escape::text(&text(error)));
}

/// R: an API's refusal names its reason; a link that failed names the server; all else is an error of ours.
fn text(error: &anyhow::Error) -> String {
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Api(refusal)) => {
            let context = error.to_string();
            let message = if context == refusal.message {
                refusal.message.clone()
            } else {
                format!("{context}: {}", refusal.message)
            };
            match refusal.reason.as_str() {
                "" => format!("Error from server: {message}"),
                "Invalid" if !refusal.details.kind.is_empty() => invalid(&refusal.details),
                "Unauthorized" => "error: You must be logged in to the server (Unauthorized)".to_owned(),
                reason => format!("Error from server ({reason}): {message}"),
            }
        }
        Some(ClientError::Transport { source: TransportError::Unreachable { address, source }, .. }) => {
            let host = address.trim_start_matches("https://");
            if is_refused(source.as_ref()) {
                format!("The connection to the server {host} was refused - did you specify the right host or port?")
            } else {
                format!("Unable to connect to the server: {source}")
            }
        }
        _ => format!("error: {error:#}"),
    }
}

/// The fields at fault, each on a line of its own where there are several.
fn invalid(details: &Details) -> String {
    let subject = format!("The {} {:?} is invalid: ", details.kind, details.name);
    let causes: Vec<String> =
        details.causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    match causes.as_slice() {
        [one] => subject + one,
        several => several.iter().fold(subject, |text, cause| text + "\n* " + cause),
    }
}

fn is_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    let refused = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
    error.downcast_ref::<std::io::Error>().is_some_and(refused)
}

#[cfg(test)]
mod tests {
    use super::text;
    use windlass_api::{ApiError, kinds};
    use windlass_client::ClientError;

    #[test]
    fn a_refusal_says_its_reason() {
        let refusal = ClientError::Api(ApiError::not_found(&kinds::POD, "a"));
        assert_eq!(text(&refusal.into()), "Error from server (NotFound): pods \"a\" not found");
        assert_eq!(text(&anyhow::anyhow!("inner").context("outer")), "error: outer: inner");
    }

    #[test]
    fn what_was_being_done_is_said_first() {
        let refusal =
            anyhow::Error::from(ClientError::Api(ApiError::not_found(&kinds::POD, "a"))).context("while waiting");
        assert_eq!(text(&refusal), "Error from server (NotFound): while waiting: pods \"a\" not found");
    }
}
