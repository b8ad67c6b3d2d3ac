//! The language itself.

use super::check;

#[test]
fn literals() {
    check(&[
        ("1", "1"),
        ("-1", "-1"),
        ("0x1F", "31"),
        ("-0x1F", "-31"),
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("9223372036854775808", "refused: invalid int literal"),
        ("18446744073709551615u", "18446744073709551615"),
        ("0xFFu", "255"),
        ("1.5", "1.5"),
        (".5", "0.5"),
        ("1e3", "1000"),
        ("1.5e-3", "0.0015"),
        ("true && !false", "true"),
        ("null", "null"),
        ("'a' + \"b\"", "ab"),
        ("'''a\nb'''", "a\nb"),
        ("\"\"\"it's\"\"\"", "it's"),
        (r"'\n' == '\x0a' && '\u0041' == 'A' && '\101' == 'A' && '\U0001F600' == '😀'", "true"),
        (r"r'\n' == '\\n'", "true"),
        (r#"R"a\"b" == 'a\\"b'"#, "true"),
        ("b'abc' == bytes('abc')", "true"),
        (r"b'\xff' == b'\377'", "true"),
        ("size(b'é')", "2"),
        ("size('é')", "1"),
        ("size('😀')", "1"),
        ("// a comment\n1 // and one more", "1"),
        ("[1, 2, 3,]", "[1, 2, 3]"),
        ("{'a': 1, 'b': 2,}", "{\"a\": 1, \"b\": 2}"),
        ("{1: 'a', true: 'b'}", "refused: expected type 'int' but found 'bool'"),
        ("{}", "{}"),
        ("[[1], []]", "[[1], []]"),
        (r"'\q'", "refused: invalid escape sequence: \\q"),
        ("'abc", "refused: Syntax error: string literal is not closed"),
        ("'a\nb'", "refused: Syntax error: string literal is not closed on its line"),
    ]);
}

#[test]
fn precedence_and_associativity() {
    check(&[
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("10 - 2 - 3", "5"),
        ("20 / 2 / 5", "2"),
        ("7 % 4 * 2", "6"),
        ("-2 * -3", "6"),
        ("1 - -1", "2"),
        ("--1", "1"),
        ("!!true", "true"),
        ("!true || true", "true"),
        ("true || false && false", "true"),
        ("1 < 2 == true", "true"),
        ("1 + 1 == 2 && 2 in [1, 2]", "true"),
        ("true ? 1 : false ? 2 : 3", "1"),
        ("false ? 1 : false ? 2 : 3", "3"),
        ("(true ? false : true) ? 1 : 2", "2"),
        ("-self.a", "-1"),
        ("!(1 > 2)", "true"),
        ("[1, 2][0] + {'a': 5}['a']", "6"),
    ]);
}

#[test]
fn arithmetic_overflow_is_a_failure() {
    check(&[
        ("9223372036854775807 + 1", "error: integer overflow"),
        ("-9223372036854775808 - 1", "error: integer overflow"),
        ("9223372036854775807 * 2", "error: integer overflow"),
        ("-(-9223372036854775808)", "error: integer overflow"),
        ("-9223372036854775808 / -1", "error: integer overflow"),
        ("18446744073709551615u + 1u", "error: unsigned integer overflow"),
        ("1u - 2u", "error: unsigned integer overflow"),
        ("1 / 0", "error: division by zero"),
        ("1u / 0u", "error: division by zero"),
        ("1 % 0", "error: modulus by zero"),
        ("1.0 / 0.0", "+Inf"),
        ("-1.0 / 0.0", "-Inf"),
        ("0.0 / 0.0 == 0.0 / 0.0", "false"),
        ("-7 / 2", "-3"),
        ("-7 % 2", "-1"),
        ("7u / 2u", "3"),
        ("7u % 4u", "3"),
        ("1.5 + 1.5 - 1.0", "2"),
        ("2.5 * 2.0", "5"),
        ("self.big + 1", "error: integer overflow"),
        ("1 + 1u", "refused: found no matching overload for '_+_' applied to '(int, uint)'"),
        ("dyn(1) + dyn(1u)", "error: no such overload"),
    ]);
}

#[test]
fn numbers_compare_across_types() {
    check(&[
        ("1 < 2u", "true"),
        ("1u < 1.5", "true"),
        ("2.5 > 2", "true"),
        ("-1 < 0u", "true"),
        ("1 <= 1.0", "true"),
        ("dyn(1) == 1u", "true"),
        ("dyn(1) == 1.0", "true"),
        ("dyn(1) == 1.5", "false"),
        ("dyn(18446744073709551615u) == 18446744073709551615.0", "false"),
        ("9223372036854775807 < 9223372036854775808.0", "true"),
        ("dyn(1) == 'a'", "false"),
        ("dyn(1) != 'a'", "true"),
        ("dyn(null) == null", "true"),
        ("self.n == null", "true"),
        ("self.a == null", "false"),
        ("1 == 1u", "refused: found no matching overload for '_==_' applied to '(int, uint)'"),
        ("dyn([1, 2u]) == [1, 2]", "refused: expected type 'int' but found 'uint'"),
        ("dyn([1u]) == [1]", "true"),
        ("dyn({1: 'a'}) == {1u: 'a'}", "true"),
        ("{1: 'a'}[dyn(1u)]", "a"),
        ("{1: 'a'}[dyn(1.0)]", "a"),
        ("{'a': [1, {'b': 2}]} == {'a': [1, {'b': 2}]}", "refused: expected type 'int' but found 'map(string, int)'"),
        ("[1, 2] == [1, 2] && [1, 2] != [2, 1]", "true"),
        ("[1] == [1, 2]", "false"),
        ("'a' < 'b' && 'a' < 'aa' && 'B' < 'a'", "true"),
        ("b'a' < b'b'", "true"),
        ("false < true", "true"),
        ("self.l < 1", "error: no such overload"),
        ("1.0 / 0.0 > 1e308", "true"),
        ("0.0 / 0.0 < 1.0 || 0.0 / 0.0 > 1.0", "false"),
    ]);
}

#[test]
fn failures_that_do_not_matter_are_absorbed() {
    check(&[
        ("true || 1 / 0 == 1", "true"),
        ("1 / 0 == 1 || true", "true"),
        ("false && 1 / 0 == 1", "false"),
        ("1 / 0 == 1 && false", "false"),
        ("1 / 0 == 1 && true", "error: division by zero"),
        ("true && 1 / 0 == 1", "error: division by zero"),
        ("1 / 0 == 1 || false", "error: division by zero"),
        ("false || 1 / 0 == 1", "error: division by zero"),
        ("true ? 1 : 1 / 0", "1"),
        ("false ? 1 / 0 : 2", "2"),
        ("1 / 0 == 1 ? 1 : 2", "error: division by zero"),
        ("[0, 1].exists(x, 1 / x == 1)", "true"),
        ("[0, 1].all(x, 1 / x == 2)", "false"),
        ("[0, 1].all(x, 1 / x == 1)", "error: division by zero"),
        ("[0].exists(x, 1 / x == 1)", "error: division by zero"),
        ("[0, 1].exists_one(x, 1 / x == 1)", "error: division by zero"),
        ("[0, 1].map(x, 1 / x)", "error: division by zero"),
        ("[0, 1].filter(x, 1 / x == 1)", "error: division by zero"),
        ("self.nothing || true", "true"),
        ("self.s || true", "true"),
        ("self.s && true", "error: no such overload"),
    ]);
}

#[test]
fn fields_and_keys() {
    check(&[
        ("self.a", "1"),
        ("self['a']", "1"),
        ("self.nested.list[0].k", "v"),
        ("self.nothing", "error: no such key: nothing"),
        ("self['nothing']", "error: no such key: nothing"),
        ("self.l[3]", "error: index out of bounds: 3"),
        ("self.l[-1]", "error: index out of bounds: -1"),
        ("self.l[1.0]", "2"),
        ("self.l[1u]", "2"),
        ("self.l['a']", "error: index out of bounds: a"),
        ("has(self.a)", "true"),
        ("has(self.nothing)", "false"),
        ("has(self.n)", "true"),
        ("has(self.nested.nothing)", "false"),
        ("has(self.nothing.more)", "error: no such key: nothing"),
        ("has({'a': 1}.a)", "true"),
        ("'x' in self.m", "true"),
        ("'z' in self.m", "false"),
        ("2 in self.l", "true"),
        ("2.0 in self.l", "true"),
        ("'2' in self.l", "false"),
        ("4 in [1, 2]", "false"),
        ("1 in {1: 2}", "true"),
        ("size(self.l) + size(self.m) + size(self.s)", "7"),
        ("self.l.size()", "3"),
        ("self.a.size()", "error: no such overload"),
        ("size(1)", "refused: found no matching overload for 'size' applied to '(int)'"),
        ("self.a.b", "error: no such overload"),
        ("{'a': 1}.b", "error: no such key: b"),
        ("{'a': 1, 'a': 2}", "error: insert failed: key a already exists"),
    ]);
}

#[test]
fn macros_with_one_variable() {
    check(&[
        ("self.l.all(x, x > 0)", "true"),
        ("self.l.all(x, x > 1)", "false"),
        ("[].all(x, x > 1)", "true"),
        ("self.l.exists(x, x == 2)", "true"),
        ("[].exists(x, x == 2)", "false"),
        ("self.l.exists_one(x, x > 2)", "true"),
        ("self.l.exists_one(x, x > 1)", "false"),
        ("self.l.map(x, x * 10)", "[10, 20, 30]"),
        ("self.l.map(x, x > 1, x * 10)", "[20, 30]"),
        ("self.l.filter(x, x % 2 == 1)", "[1, 3]"),
        ("{'b': 1, 'a': 2}.map(k, k)", "[\"a\", \"b\"]"),
        ("{'a': 1}.all(k, k == 'a')", "true"),
        ("self.l.map(x, self.l.map(y, x * y))", "[[1, 2, 3], [2, 4, 6], [3, 6, 9]]"),
        ("self.l.map(x, self.l.filter(x, x > 1))", "[[2, 3], [2, 3], [2, 3]]"),
        ("self.l.map(x, [x].map(x, x + 1))", "[[2], [3], [4]]"),
        ("self.l.filter(self, self > 1)", "[2, 3]"),
        ("self.m.map(k, self.m[k])", "[\"y\"]"),
        ("self.s.map(x, x)", "error: no such overload"),
        (
            "1.map(x, x)",
            "refused: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        ("self.l.map(1, 2)", "refused: argument must be a simple name"),
        ("has(1)", "refused: invalid argument to has() macro"),
        ("has(self)", "refused: invalid argument to has() macro"),
    ]);
}

#[test]
fn macros_with_two_variables() {
    check(&[
        ("self.l.all(i, v, v == i + 1)", "true"),
        ("self.l.exists(i, v, i == 2 && v == 3)", "true"),
        ("self.l.existsOne(i, v, v > 2)", "true"),
        ("self.l.exists_one(i, v, v > 1)", "false"),
        ("self.l.transformList(i, v, i * v)", "[0, 2, 6]"),
        ("self.l.transformList(i, v, i > 0, i * v)", "[2, 6]"),
        ("{'a': 1, 'b': 2}.transformList(k, v, k + string(v))", "[\"a1\", \"b2\"]"),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v * 2)", "{\"a\": 2, \"b\": 4}"),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v * 2)", "{\"b\": 4}"),
        ("['x', 'y'].transformMap(i, v, v + '!')", "{0: \"x!\", 1: \"y!\"}"),
        ("{'a': 'x'}.transformMapEntry(k, v, {v: k})", "{\"x\": \"a\"}"),
        ("['a', 'b'].transformMapEntry(i, v, i > 0, {v: i})", "{\"b\": 1}"),
        ("['a', 'a'].transformMapEntry(i, v, {v: i})", "error: insert failed: key a already exists"),
        ("{'a': 1}.all(k, v, k == 'a' && v == 1)", "true"),
        ("self.l.all(i, i, true)", "refused: duplicate variable name: i"),
    ]);
}

#[test]
fn bindings() {
    check(&[
        ("cel.bind(x, 2, x * x)", "4"),
        ("cel.bind(x, self.l, cel.bind(y, x.size(), y + x[0]))", "4"),
        ("cel.bind(x, 1, [1, 2].map(y, x + y))", "[2, 3]"),
        ("[1, 2].map(x, cel.bind(y, x * 2, y + x))", "[3, 6]"),
        ("cel.bind(1, 2, 3)", "refused: cel.bind() variable names must be simple identifiers"),
    ]);
}

#[test]
fn optionals() {
    check(&[
        ("self.?a", "optional(1)"),
        ("self.?nothing", "optional.none()"),
        ("self.?nothing.more.and.more", "optional.none()"),
        ("self.?nested.?list", "optional([{\"k\": \"v\"}])"),
        ("self.?a.orValue(5)", "1"),
        ("self.?nothing.orValue(5)", "5"),
        ("self.l[?0].orValue(9)", "1"),
        ("self.l[?7].orValue(9)", "9"),
        ("self.m[?'x']", "optional(\"y\")"),
        ("self.m[?'z']", "optional.none()"),
        ("self.?nested.list[0].k.value()", "v"),
        ("self.?nothing.hasValue()", "false"),
        ("self.?nothing.value()", "error: optional.none() dereference"),
        ("optional.of(1).or(optional.of(2)).value()", "1"),
        ("optional.none().or(optional.of(2)).value()", "2"),
        ("optional.ofNonZeroValue(0)", "optional.none()"),
        ("optional.ofNonZeroValue('a')", "optional(\"a\")"),
        ("optional.of(3).optMap(x, x + 1)", "optional(4)"),
        ("optional.none().optMap(x, x + 1)", "optional.none()"),
        ("optional.of(3).optFlatMap(x, optional.of(x * 2))", "optional(6)"),
        ("optional.of(3).optFlatMap(x, optional.none())", "optional.none()"),
        ("optional.of([1]).optMap(x, optional.of(2).optMap(y, x[0] + y).value())", "optional(3)"),
        ("[?self.?a, ?self.?nothing, 7]", "[1, 7]"),
        ("{?'a': self.?a, ?'b': self.?nothing}", "{\"a\": 1}"),
        ("has(self.?nested.list)", "true"),
        ("has(self.?nothing.list)", "false"),
        ("optional.of(1) == optional.of(1)", "true"),
        ("optional.none() == optional.of(1)", "false"),
        ("type(optional.none()) == optional_type", "true"),
        ("[?1]", "refused: expected type 'optional_type(dyn)' but found 'int'"),
    ]);
}

#[test]
fn conversions() {
    check(&[
        ("int('42') + int(4.9) + int(3u)", "49"),
        ("int(-4.9)", "-4"),
        ("int('x')", "error: type conversion error from 'string' to 'int'"),
        ("int(1e30)", "error: integer overflow"),
        ("int(18446744073709551615u)", "error: integer overflow"),
        ("uint(3) + uint('4') + uint(5.5)", "12"),
        ("uint(-1)", "error: unsigned integer overflow"),
        ("double('1.5') + double(1) + double(2u)", "4.5"),
        ("string(1) + string(2u) + string(1.5) + string(true)", "121.5true"),
        ("string(1e21)", "1e+21"),
        ("string(1e-7)", "1e-07"),
        ("string(100.0)", "100"),
        ("string(b'abc')", "abc"),
        (r"string(b'\xff')", "error: invalid UTF-8 in bytes, cannot convert to string"),
        ("bytes('é') == b'é'", "true"),
        ("bool('true') && !bool('f')", "true"),
        ("bool('yes')", "error: type conversion error from 'string' to 'bool'"),
        ("string(duration('1h30m'))", "5400s"),
        ("string(timestamp('2026-01-02T03:04:05Z'))", "2026-01-02T03:04:05Z"),
        ("int(timestamp('1970-01-01T00:01:00Z'))", "60"),
        ("timestamp(60) == timestamp('1970-01-01T00:01:00Z')", "true"),
        ("type(1) == int && type(1u) == uint && type(1.0) == double", "true"),
        ("type('a') == string && type(b'a') == bytes && type(null) == null_type", "true"),
        ("type([1]) == list && type({}) == map && type(int) == type", "true"),
        ("type(timestamp(0)) == google.protobuf.Timestamp", "true"),
        ("type(duration('1s')) == google.protobuf.Duration", "true"),
        ("type(self.a) == int && type(self.d) == double", "true"),
        ("type(self.n) == null_type", "true"),
        ("dyn(1) == 1", "true"),
    ]);
}

#[test]
fn moments_and_spans() {
    check(&[
        ("timestamp('2026-01-02T03:04:05.678Z').getMilliseconds()", "678"),
        ("timestamp('2026-01-02T03:04:05Z').getFullYear()", "2026"),
        ("timestamp('2026-01-02T03:04:05Z').getMonth()", "0"),
        ("timestamp('2026-01-02T03:04:05Z').getDate()", "2"),
        ("timestamp('2026-01-02T03:04:05Z').getDayOfMonth()", "1"),
        ("timestamp('2026-02-02T03:04:05Z').getDayOfYear()", "32"),
        ("timestamp('2026-01-04T03:04:05Z').getDayOfWeek()", "0"),
        ("timestamp('2026-01-02T03:04:05Z').getHours('+02:00')", "5"),
        ("timestamp('2026-01-02T03:04:05Z').getHours('-07:30')", "19"),
        ("timestamp('2026-01-02T03:04:05Z').getHours('America/New_York')", "22"),
        ("timestamp('2026-07-02T03:04:05Z').getHours('America/New_York')", "23"),
        ("timestamp('2026-01-02T03:04:05Z').getDayOfMonth('America/New_York')", "0"),
        ("timestamp('2026-01-02T03:04:05Z').getHours('Local')", "error: unknown time zone Local"),
        ("timestamp('2026-01-02T03:04:05Z').getHours('Nowhere/Else')", "error: unknown time zone Nowhere/Else"),
        ("timestamp('2026-01-02T03:04:05Z') + duration('1h') == timestamp('2026-01-02T04:04:05Z')", "true"),
        ("duration('1h') + timestamp(0) == timestamp(3600)", "true"),
        ("timestamp(100) - timestamp(40) == duration('60s')", "true"),
        ("timestamp(100) - duration('40s') == timestamp(60)", "true"),
        ("duration('1h') - duration('30m') < duration('31m')", "true"),
        ("duration('1h30m').getHours()", "1"),
        ("duration('1h30m').getMinutes()", "90"),
        ("duration('1.5s').getMilliseconds()", "500"),
        ("timestamp('9999-12-30T22:00:00Z') + duration('1s')", "error: timestamp overflow"),
        ("timestamp('0001-01-01T00:00:00Z') - duration('1s')", "error: timestamp overflow"),
        ("timestamp(9223372036854775807)", "error: timestamp overflow"),
        ("duration('2562047h') + duration('2562047h')", "error: duration overflow"),
        ("timestamp(self.t).getSeconds()", "5"),
        ("timestamp(self.s)", "error: type conversion error from 'string' to 'timestamp'"),
        ("duration(self.s)", "error: type conversion error from 'string' to 'duration'"),
        ("timestamp('x')", "refused: invalid timestamp argument: expected an RFC 3339 time, found \"x\""),
        ("duration('x')", "refused: invalid duration argument: expected a duration such as \"1h30m\", found \"x\""),
        ("timestamp(0) < timestamp(1) && duration('1s') > duration('1ms')", "true"),
    ]);
}

#[test]
fn r5_what_is_bound_is_evaluated_when_it_is_first_used() {
    check(&[
        ("cel.bind(x, self.absent, true)", "true"),
        ("cel.bind(x, self.absent, true || x)", "true"),
        ("cel.bind(x, self.absent, x || true)", "true"),
        ("cel.bind(x, self.absent, x)", "error: no such key: absent"),
        ("cel.bind(x, [3].map(i, i + 1), [1, 2].map(j, cel.bind(y, j * 10, x[0] + y)))", "[14, 24]"),
        ("cel.bind(a, 1, cel.bind(b, [a].map(i, i + a), cel.bind(c, 5, [c] + b + b)))", "[5, 2, 2]"),
        ("cel.bind(a, self.a, [1, 2].map(i, a + i).map(i, a + i))", "[3, 4]"),
        ("cel.bind(x, 'y', x) == 'y' && cel.bind(x, 1, cel.bind(x, x + 1, x)) == 2", "true"),
        ("[1, 2].map(i, cel.bind(x, i, cel.bind(y, x, y)))", "[1, 2]"),
    ]);
}
