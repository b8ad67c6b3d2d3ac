//! The libraries of Kubernetes.

use std::sync::Mutex;

use super::super::{Authorizer, Bindings, Budget, Decision, Env, Opaque, Question, Subject, Type, Value};
use super::check;

#[test]
fn patterns() {
    check(&[
        ("'abc 123'.matches('[a-z]+ \\\\d+')", "true"),
        ("matches('abc', '^b')", "false"),
        ("'abc 123'.find('[0-9]+')", "123"),
        ("'abc'.find('[0-9]+')", ""),
        ("'123 abc 456'.findAll('[0-9]+')", "[\"123\", \"456\"]"),
        ("'123 abc 456'.findAll('[0-9]+', 1)", "[\"123\"]"),
        ("'123'.findAll('[0-9]+', 0)", "[]"),
        ("'abc'.find('(')", "refused: invalid find argument: error parsing regexp: unclosed group: `(`"),
        ("'abc'.matches(self.s)", "true"),
        ("'abc'.matches(self.s + '(')", "error: error parsing regexp: unclosed group: `abc(`"),
    ]);
}

#[test]
fn urls() {
    check(&[
        ("isURL('https://example.com:80/path') && isURL('/path') && isURL('mailto:a@b.c')", "true"),
        ("isURL('../relative') || isURL('example.com') || isURL('http://a b/')", "false"),
        ("url('https://user:pw@example.com:8080/a b?x=1').getHost()", "example.com:8080"),
        ("url('https://[::1]:80/').getHostname() + url('https://[::1]:80/').getPort()", "::180"),
        ("url('https://[::1]:80/').getHost()", "[::1]:80"),
        ("url('https://example.com').getPort() == '' && url('/p').getScheme() == ''", "true"),
        ("url('https://example.com/with space/').getEscapedPath()", "/with%20space/"),
        ("url('https://example.com/?k=a&k=b&l=c%20d').getQuery()", "{\"k\": [\"a\", \"b\"], \"l\": [\"c d\"]}"),
        ("url('/p') == url('/p')", "true"),
        ("url('x')", "error: URL parse error during conversion from string: invalid URI \"x\""),
    ]);
}

#[test]
fn quantities() {
    check(&[
        ("isQuantity('1.5Gi') && !isQuantity('1.5 GiB')", "true"),
        ("quantity('50k').isInteger() && !quantity('1m').isInteger()", "true"),
        ("quantity('50k').asInteger()", "50000"),
        ("quantity('1m').asInteger()", "error: cannot convert value to integer"),
        ("quantity('1500m').asApproximateFloat()", "1.5"),
        ("quantity('-5').sign() + quantity('0').sign()", "-1"),
        ("quantity('1Gi').isGreaterThan(quantity('1G'))", "true"),
        ("quantity('100m').isLessThan(quantity('0.1'))", "false"),
        ("quantity('100m').compareTo(quantity('0.1'))", "0"),
        ("quantity('1Gi').add(quantity('1Gi')) == quantity('2Gi')", "true"),
        ("quantity('10').sub(1).add(quantity('500m')).compareTo(quantity('9500m'))", "0"),
        (
            "quantity('x').sign()",
            "error: quantities must be a number with at most one of the suffixes n u m k M G T P E Ki Mi Gi Ti Pi Ei or an exponent, found \"x\"",
        ),
        ("quantity('1') + 1", "refused: found no matching overload for '_+_' applied to '(kubernetes.Quantity, int)'"),
    ]);
}

#[test]
fn addresses() {
    check(&[
        ("isIP('10.0.0.1') && isIP('::1') && !isIP('10.0.0.01') && !isIP('::ffff:1.2.3.4')", "true"),
        ("ip('10.0.0.1').family() + ip('::1').family()", "10"),
        ("ip.isCanonical('2001:db8::1') && !ip.isCanonical('2001:DB8::1')", "true"),
        ("ip('127.0.0.1').isLoopback() && ip('0.0.0.0').isUnspecified()", "true"),
        ("ip('169.254.1.1').isLinkLocalUnicast() && ip('fe80::1').isLinkLocalUnicast()", "true"),
        ("ip('224.0.0.1').isLinkLocalMulticast() && ip('ff02::1').isLinkLocalMulticast()", "true"),
        ("ip('8.8.8.8').isGlobalUnicast() && !ip('255.255.255.255').isGlobalUnicast()", "true"),
        ("string(ip('2001:DB8:0::1'))", "2001:db8::1"),
        ("ip('::1') == ip('0:0::1')", "true"),
        ("ip('x')", "error: IP Address \"x\" parse error during conversion from string"),
        ("isCIDR('10.0.0.0/8') && !isCIDR('10.0.0.0/33') && !isCIDR('10.0.0.0/08')", "true"),
        ("cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsIP('11.0.0.1')", "true"),
        ("cidr('10.0.0.0/8').containsIP(ip('10.1.2.3'))", "true"),
        (
            "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && !cidr('10.1.0.0/16').containsCIDR(cidr('10.0.0.0/8'))",
            "true",
        ),
        ("cidr('::/0').containsIP('10.0.0.1')", "false"),
        ("string(cidr('10.1.2.3/8').masked())", "10.0.0.0/8"),
        ("cidr('10.1.2.3/8').prefixLength()", "8"),
        ("string(cidr('10.1.2.3/8').ip())", "10.1.2.3"),
        ("type(ip('::1')) == net.IP && type(cidr('::/0')) == net.CIDR", "true"),
    ]);
}

#[test]
fn named_formats() {
    check(&[
        ("format.dns1123Label().validate('my-name')", "optional.none()"),
        ("format.dns1123Label().validate('My.Name').hasValue()", "true"),
        ("format.dns1123Subdomain().validate('a.b').hasValue()", "false"),
        ("format.dns1035Label().validate('1a').hasValue()", "true"),
        ("format.qualifiedName().validate('a.b/c').hasValue()", "false"),
        ("format.dns1123LabelPrefix().validate('a-').hasValue()", "false"),
        ("format.labelValue().validate('a b').hasValue()", "true"),
        ("format.uri().validate('https://x').hasValue()", "false"),
        ("format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue()", "false"),
        ("format.uuid().validate('x').value()", "[\"does not match the UUID pattern\"]"),
        ("format.byte().validate('aGVsbG8=').hasValue()", "false"),
        ("format.date().validate('2026-02-30').hasValue()", "true"),
        ("format.datetime().validate('2026-02-03T04:05:06Z').hasValue()", "false"),
        ("format.named('uuid').value().validate('x').hasValue()", "true"),
        ("format.named('nothing')", "optional.none()"),
    ]);
}

#[test]
fn versions() {
    check(&[
        ("isSemver('1.2.3') && !isSemver('v1.2.3') && !isSemver('1.2') && !isSemver('01.2.3')", "true"),
        ("isSemver('v1.2', true) && isSemver('01.02', true)", "true"),
        ("semver('1.2.3').major() * 100 + semver('1.2.3').minor() * 10 + semver('1.2.3').patch()", "123"),
        ("semver('1.2.3').isLessThan(semver('1.10.0'))", "true"),
        ("semver('1.0.0-rc.1').compareTo(semver('1.0.0'))", "-1"),
        ("semver('1.0.0-alpha.2').isGreaterThan(semver('1.0.0-alpha.1.x'))", "true"),
        ("semver('1.0.0-1').isLessThan(semver('1.0.0-a'))", "true"),
        ("semver('1.0.0+a') == semver('1.0.0+b')", "true"),
        ("semver('x')", "error: expected a version such as \"1.2.3\", found \"x\""),
    ]);
}

#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<Question>>);

impl Authorizer for Recorder {
    fn decide(&self, question: &Question) -> Decision {
        self.0.lock().expect("one thread").push(question.clone());
        Decision { allowed: question.verb == "get", reason: "because".to_owned(), error: String::new() }
    }
}

#[test]
fn authorizers_are_asked_what_was_put_together() {
    let recorder = Recorder::default();
    let env = Env::new().variable("authorizer", Type::Opaque("kubernetes.authorization.Authorizer"));
    let ask = |text: &str| {
        let program = env.compile(text).unwrap_or_else(|errors| panic!("{errors}"));
        let bindings = Bindings::new().with("authorizer", Value::Opaque(Opaque::Authorizer(&recorder)));
        let value = program.evaluate(&bindings, &mut Budget::new(1_000_000)).expect(text);
        let asked = recorder.0.lock().expect("one thread").pop().expect("a question");
        (value.as_bool().expect("a bool"), asked)
    };
    let (allowed, asked) = ask("authorizer.path('/healthz').check('get').allowed()");
    assert!(allowed && asked.path.as_deref() == Some("/healthz") && asked.subject == Subject::Requester);
    let (allowed, asked) =
        ask("authorizer.serviceAccount('ns', 'sa').group('apps').resource('deployments').subresource('scale')\
         .namespace('default').name('web').labelSelector('a=b').check('create').allowed()");
    assert!(!allowed);
    let expected = Question {
        subject: Subject::ServiceAccount("ns".into(), "sa".into()),
        verb: "create".into(),
        group: "apps".into(),
        resource: "deployments".into(),
        subresource: "scale".into(),
        namespace: "default".into(),
        name: "web".into(),
        label_selector: Some("a=b".into()),
        ..Question::default()
    };
    assert_eq!(asked, expected);
    let (same, _) = ask("authorizer.group('').resource('pods').check('list').reason() == 'because'");
    assert!(same);
    assert!(env.compile("authorizer.check('get')").is_err());
}
