//! Quantities: how Kubernetes writes amounts of memory, processor time and the like (`500m`, `1.5Gi`, `2e3`).
//!
//! Exact to a billionth, which is as fine as the API goes; what is finer is rounded away from zero, what is larger than
//! 2^63-1 is held there, as the API reference says of resource.Quantity.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

/// The notation a quantity was written in and is printed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notation {
    /// `n u m k M G T P E`: powers of 1000.
    Decimal,
    /// `Ki Mi Gi Ti Pi Ei`: powers of 1024.
    Binary,
    /// `e3`: a power of ten.
    Exponent,
}

/// An amount.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    notation: Notation,
}

/// A text that is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantities must be a number with at most one of the suffixes n u m k M G T P E Ki Mi Gi Ti Pi Ei or an exponent, found {found:?}"
)]
pub struct QuantityError {
    /// What was found, cut short.
    pub found: String,
}

const NANOS: i128 = 1_000_000_000;
const NANOS_MAX: i128 = i64::MAX as i128 * NANOS;
/// Longest text looked at; the largest canonical quantity has 21 characters.
const TEXT_BYTES_MAX: usize = 256;
/// Decimal digits that fit a u128.
const DIGITS_MAX: usize = 38;
/// Digits after the point that a binary suffix takes exactly; 10^11 * 2^60 * 10^9 still fits an i128.
const BINARY_FRACTION_DIGITS_MAX: usize = 11;

impl Quantity {
    /// Nothing.
    pub const ZERO: Quantity = Quantity { nanos: 0, notation: Notation::Decimal };

    /// So many whole units.
    pub fn from_units(units: i64, notation: Notation) -> Quantity {
        Quantity { nanos: i128::from(units) * NANOS, notation }
    }

    /// So many bytes, printed with `Ki`, `Mi`….
    pub fn from_bytes(bytes: u64) -> Quantity {
        Quantity { nanos: clamp(i128::from(bytes) * NANOS), notation: Notation::Binary }
    }

    /// So many thousandths.
    pub fn from_millis(millis: i64) -> Quantity {
        Quantity { nanos: i128::from(millis) * 1_000_000, notation: Notation::Decimal }
    }

    /// Reads a quantity out of JSON: a text, or a plain number.
    pub fn from_json(value: &Value) -> Result<Quantity, QuantityError> {
        match value {
            Value::String(text) => text.parse(),
            Value::Number(number) => number.to_string().parse(),
            other => Err(QuantityError { found: cut(&other.to_string()) }),
        }
    }

    /// Whole units, rounded away from zero: bytes of memory, pods, ports.
    pub fn units(self) -> i64 {
        saturate(divide_away(self.nanos, NANOS))
    }

    /// Thousandths, rounded away from zero: processor time.
    pub fn millis(self) -> i64 {
        saturate(divide_away(self.nanos, 1_000_000))
    }

    /// The nearest floating point number.
    pub fn approximate(self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    /// The notation it prints in.
    pub fn notation(self) -> Notation {
        self.notation
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is less than nothing.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }
}

/// The sum, held at the limits; it keeps the notation of the first unless that is zero.
impl std::ops::Add for Quantity {
    type Output = Quantity;

    fn add(self, other: Quantity) -> Quantity {
        let notation = if self.is_zero() { other.notation } else { self.notation };
        Quantity { nanos: clamp(self.nanos + other.nanos), notation }
    }
}

/// The difference, held at the limits; it keeps the notation of the first unless that is zero.
impl std::ops::Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        let notation = if self.is_zero() { other.notation } else { self.notation };
        Quantity { nanos: clamp(self.nanos - other.nanos), notation }
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Quantity>>(all: I) -> Quantity {
        all.fold(Quantity::ZERO, |sum, next| sum + next)
    }
}

/// Amounts are equal whatever their notation.
impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Quantity, QuantityError> {
        read(text).ok_or_else(|| QuantityError { found: cut(text) })
    }
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

fn clamp(nanos: i128) -> i128 {
    nanos.clamp(-NANOS_MAX, NANOS_MAX)
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn divide_away(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by == 0 { quotient } else { quotient + value.signum() }
}

enum Suffix {
    Ten(i32),
    Two(u32),
}

fn read(text: &str) -> Option<Quantity> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (suffix, notation) = read_suffix(suffix)?;
    let magnitude = match suffix {
        Suffix::Ten(power) => decimal_nanos(whole, fraction, power),
        Suffix::Two(power) => binary_nanos(whole, fraction, power),
    };
    let magnitude = magnitude.unwrap_or(NANOS_MAX).min(NANOS_MAX);
    Some(Quantity { nanos: if negative { -magnitude } else { magnitude }, notation })
}

fn read_suffix(suffix: &str) -> Option<(Suffix, Notation)> {
    let decimal = |power| Some((Suffix::Ten(power), Notation::Decimal));
    let binary = |power| Some((Suffix::Two(power), Notation::Binary));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let power = suffix.strip_prefix(['e', 'E'])?;
            let digits = power.strip_prefix(['+', '-']).unwrap_or(power);
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let power: i32 = if plain && digits.len() <= 6 { power.parse().ok()? } else { return None };
            Some((Suffix::Ten(power), Notation::Exponent))
        }
    }
}

/// `None` when the amount is beyond any limit.
fn decimal_nanos(whole: &str, fraction: &str, power: i32) -> Option<i128> {
    let fraction = fraction.trim_end_matches('0');
    let all: Vec<u8> = whole.bytes().chain(fraction.bytes()).skip_while(|digit| *digit == b'0').collect();
    let kept = &all[..all.len().min(DIGITS_MAX)];
    let dropped = &all[kept.len()..];
    let digits = kept.iter().fold(0u128, |sum, digit| sum * 10 + u128::from(digit - b'0'));
    if digits == 0 {
        return Some(0);
    }
    let sticky = dropped.iter().any(|digit| *digit != b'0');
    // text lengths are at most TEXT_BYTES_MAX and the power at most six digits, so this cannot overflow
    let power = power - fraction.len() as i32 + dropped.len() as i32 + 9;
    if power >= 0 {
        let factor = 10u128.checked_pow(power.unsigned_abs())?;
        return i128::try_from(digits.checked_mul(factor)?).ok();
    }
    let Some(divisor) = 10u128.checked_pow(power.unsigned_abs()) else { return Some(1) };
    let inexact = sticky || !digits.is_multiple_of(divisor);
    i128::try_from(digits / divisor + u128::from(inexact)).ok()
}

/// `None` when the amount is beyond any limit.
fn binary_nanos(whole: &str, fraction: &str, power: u32) -> Option<i128> {
    let whole = whole.trim_start_matches('0');
    let units: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let units = units.checked_mul(1 << power)?.checked_mul(NANOS)?;
    let fraction = fraction.trim_end_matches('0');
    let kept = &fraction[..fraction.len().min(BINARY_FRACTION_DIGITS_MAX)];
    if fraction.is_empty() {
        return Some(units);
    }
    let digits: i128 = kept.parse().ok()?;
    let scale = 10i128.pow(kept.len() as u32);
    let scaled = digits * (1 << power) * NANOS;
    let inexact = scaled % scale != 0 || kept.len() < fraction.len();
    units.checked_add(scaled / scale + i128::from(inexact))
}

/// The canonical form: no fraction, the largest suffix that loses nothing.
impl fmt::Display for Quantity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        if self.nanos == 0 {
            return out.write_str("0");
        }
        let whole = self.nanos % NANOS == 0;
        // amounts below 1024 read better without a binary suffix, and fractions cannot have one
        if self.notation == Notation::Binary && whole && self.nanos.abs() >= 1024 * NANOS {
            let (number, step) = shrink(self.nanos / NANOS, 1024, BINARY.len() - 1);
            return write!(out, "{number}{}", BINARY[step]);
        }
        let (number, step) = shrink(self.nanos, 1000, DECIMAL.len() - 1);
        let power = step as i32 * 3 - 9;
        match self.notation {
            Notation::Exponent if power == 0 => write!(out, "{number}"),
            Notation::Exponent => write!(out, "{number}e{power}"),
            _ => write!(out, "{number}{}", DECIMAL[step]),
        }
    }
}

fn shrink(mut number: i128, base: i128, steps_max: usize) -> (i128, usize) {
    let mut steps = 0;
    while steps < steps_max && number % base == 0 {
        number /= base;
        steps += 1;
    }
    (number, steps)
}

#[cfg(test)]
mod tests {
    use super::{Notation, Quantity};
    use serde_json::json;

    fn read(text: &str) -> Quantity {
        text.parse().expect(text)
    }

    #[test]
    fn texts_become_canonical() {
        for (text, canonical) in [
            ("0", "0"),
            ("0Mi", "0"),
            ("1", "1"),
            ("1000", "1k"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("+3", "3"),
            ("-2", "-2"),
            ("1.5Gi", "1536Mi"),
            ("1024Ki", "1Mi"),
            ("1023Ki", "1023Ki"),
            ("512Mi", "512Mi"),
            ("0.5Ki", "512"),
            ("1.1Ki", "1126400m"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e-1", "1200e-3"),
            ("100", "100"),
            ("3E", "3E"),
            ("0.000000001", "1n"),
            ("0.0000000001", "1n"),
            ("-0.0000000001", "-1n"),
            ("123456789.123456789", "123456789123456789n"),
            ("2048", "2048"),
            ("9999999999999999999999", "9223372036854775807"),
            ("99Ei", "9223372036854775807"),
            ("1e400", "9223372036854775807"),
            ("1e-400", "1e-9"),
            ("0e999", "0"),
            ("100000000000000000000000000000000000000000m", "9223372036854775807"),
        ] {
            assert_eq!(read(text).to_string(), canonical, "{text}");
            assert_eq!(read(canonical), read(text), "{text} reads back");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "",
            " 1",
            "1 ",
            "1ki",
            "1KI",
            "Mi",
            "1.2.3",
            "1mm",
            "e3",
            "1e",
            "1e+",
            "--1",
            "0x10",
            "NaN",
            "1e1234567",
            "1,5",
            "١",
        ] {
            assert!(text.parse::<Quantity>().is_err(), "{text:?}");
        }
        let long = "9".repeat(10_000);
        let error = long.parse::<Quantity>().expect_err("too long").to_string();
        assert!(error.len() < 300, "{error}");
    }

    #[test]
    fn units_and_millis_round_away_from_zero() {
        for (text, units, millis) in [
            ("1500m", 2, 1500),
            ("-1500m", -2, -1500),
            ("100u", 1, 1),
            ("64Mi", 67_108_864, 67_108_864_000),
            ("2", 2, 2000),
        ] {
            assert_eq!((read(text).units(), read(text).millis()), (units, millis), "{text}");
        }
        assert_eq!(read("8Ei").millis(), i64::MAX, "held at the limit");
    }

    #[test]
    fn sums_keep_the_first_notation() {
        assert_eq!((read("1Gi") + read("512Mi")).to_string(), "1536Mi");
        assert_eq!((Quantity::ZERO + read("1Gi")).to_string(), "1Gi");
        assert_eq!((read("1") - read("250m")).to_string(), "750m");
        assert_eq!([read("100m"), read("0.9")].into_iter().sum::<Quantity>(), read("1"));
        assert!(read("1Gi") > read("1G") && read("1") == read("1000m"));
        assert_eq!(read("8E") + read("8E"), Quantity::from_units(i64::MAX, Notation::Decimal));
    }

    #[test]
    fn numbers_in_json_are_quantities_too() {
        for (value, canonical) in
            [(json!(2), "2"), (json!(0.5), "500m"), (json!("1Ki"), "1Ki"), (json!(1e21), "9223372036854775807")]
        {
            assert_eq!(Quantity::from_json(&value).map(|quantity| quantity.to_string()).as_deref(), Ok(canonical));
        }
        assert!(Quantity::from_json(&json!({"a": 1})).is_err());
    }
}
