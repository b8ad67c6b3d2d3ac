//! Amount: a number of pods, or a share of them such as `25%`.
//!
//! Source: API reference, intstr as used by rollouts and disruption budgets.

use serde_json::Value;

use super::check::NOT_NEGATIVE;
use crate::field::{Errors, Path};

const NO_SHARE: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
                        regex used for validation is '[0-9]+%')";

/// What a field of this kind says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amount {
    Count(i64),
    /// In percent.
    Share(u32),
}

impl Amount {
    pub fn is_zero(self) -> bool {
        matches!(self, Amount::Count(0) | Amount::Share(0))
    }
}

/// Reads an amount, which must not be negative; `None` after an error.
pub(super) fn read(value: &Value, path: &Path, errors: &mut Errors) -> Option<Amount> {
    let refusal = match value {
        Value::Number(number) => match number.as_i64() {
            Some(count) if count >= 0 => return Some(Amount::Count(count)),
            Some(_) => NOT_NEGATIVE,
            None => "must be an integer or percentage (e.g '5%%')",
        },
        Value::String(text) => match share(text) {
            Some(share) => return Some(Amount::Share(share)),
            None => NO_SHARE,
        },
        _ => "must be an integer or percentage (e.g '5%%')",
    };
    errors.invalid(path, value.clone(), refusal);
    None
}

/// Reads an amount that is at most all there is.
pub(super) fn read_part(value: &Value, path: &Path, errors: &mut Errors) -> Option<Amount> {
    let amount = read(value, path, errors);
    if matches!(amount, Some(Amount::Share(101..))) {
        errors.invalid(path, value.clone(), "must not be greater than 100%");
    }
    amount
}

fn share(text: &str) -> Option<u32> {
    let digits = text.strip_suffix('%').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Amount, read, read_part};
    use crate::field::{Errors, Path};
    use serde_json::{Value, json};

    fn check(value: Value, expected: Option<Amount>, refusal: &str) {
        let mut errors = Errors::new();
        assert_eq!(read_part(&value, &Path::new("a"), &mut errors), expected, "{value}");
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), usize::from(!refusal.is_empty()), "{found:?}");
        assert!(found.iter().all(|found| found.ends_with(refusal)), "{found:?}");
    }

    #[test]
    fn an_amount_is_a_count_or_a_share() {
        check(json!(3), Some(Amount::Count(3)), "");
        check(json!("25%"), Some(Amount::Share(25)), "");
        check(json!(-1), None, "must be greater than or equal to 0");
        check(json!("-1%"), None, "regex used for validation is '[0-9]+%')");
        check(json!("half"), None, "regex used for validation is '[0-9]+%')");
        check(json!(null), None, "must be an integer or percentage (e.g '5%%')");
        check(json!("101%"), Some(Amount::Share(101)), "must not be greater than 100%");
        let mut errors = Errors::new();
        assert_eq!(read(&json!("150%"), &Path::new("a"), &mut errors), Some(Amount::Share(150)));
        assert!(errors.is_empty() && Amount::Share(0).is_zero() && !Amount::Count(1).is_zero());
    }
}
