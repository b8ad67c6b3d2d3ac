//! The part of a URL after the question mark.

use percent_encoding::percent_decode_str;

/// The most parameters that are looked at; an exec of many words has the most.
const PARAMETERS_MAX: usize = 1024;

/// The parameters of a request, in order, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query string. What is no UTF-8 is replaced, what is beyond the bound is dropped.
    pub fn parse(text: Option<&str>) -> Query {
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.take(PARAMETERS_MAX).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        });
        Query(pairs.collect())
    }

    /// The first value of a parameter.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub fn all(&self, key: &str) -> Vec<String> {
        self.0.iter().filter(|(found, _)| found == key).map(|(_, value)| value.clone()).collect()
    }

    /// Whether a parameter is set to `1` or `true`.
    pub fn flag(&self, key: &str) -> bool {
        matches!(self.get(key), Some("1" | "true" | "True" | "TRUE" | "t" | "T"))
    }
}

#[cfg(test)]
mod tests {
    use super::Query;

    #[test]
    fn parameters_are_decoded_and_may_repeat() {
        let query = Query::parse(Some("command=sh&command=-c&command=a%20%26+b&tty=1&output=false&x"));
        assert_eq!(query.all("command"), ["sh", "-c", "a & b"]);
        assert_eq!((query.flag("tty"), query.flag("output"), query.get("x")), (true, false, Some("")));
        assert_eq!(Query::parse(None), Query::default());
    }
}
