//! The extensions of the language.

use super::check;

#[test]
fn strings() {
    check(&[
        ("'abc'.contains('b') && !'abc'.contains('x')", "true"),
        ("'abc'.startsWith('ab') && 'abc'.endsWith('bc')", "true"),
        ("'tacocat'.charAt(3)", "o"),
        ("'abc'.charAt(3)", ""),
        ("'abc'.charAt(4)", "error: index out of range: 4"),
        ("'abc'.charAt(-1)", "error: index out of range: -1"),
        ("'hello mellow'.indexOf('ello')", "1"),
        ("'hello mellow'.indexOf('ello', 2)", "7"),
        ("'hello mellow'.indexOf('x')", "-1"),
        ("'hello'.indexOf('')", "0"),
        ("'hello mellow'.indexOf('ello', 20)", "error: index out of range: 20"),
        ("'hello mellow'.lastIndexOf('ello')", "7"),
        ("'hello mellow'.lastIndexOf('ello', 6)", "1"),
        ("'hello mellow'.lastIndexOf('x')", "-1"),
        ("'ééa'.indexOf('a')", "2"),
        ("['a', 'b'].join()", "ab"),
        ("['a', 'b'].join('-')", "a-b"),
        ("[].join('-')", ""),
        ("'TacoCÆt'.lowerAscii()", "tacocÆt"),
        ("'TacoCæt'.upperAscii()", "TACOCæT"),
        ("'hello hello'.replace('he', 'we')", "wello wello"),
        ("'hello hello'.replace('he', 'we', 1)", "wello hello"),
        ("'hello hello'.replace('he', 'we', 0)", "hello hello"),
        ("'ab'.replace('', '-')", "-a-b-"),
        ("'a,b,c'.split(',')", "[\"a\", \"b\", \"c\"]"),
        ("'a,b,c'.split(',', 2)", "[\"a\", \"b,c\"]"),
        ("'a,b,c'.split(',', 0)", "[]"),
        ("'abc'.split('')", "[\"a\", \"b\", \"c\"]"),
        ("'abc'.split('', 2)", "[\"a\", \"bc\"]"),
        ("'tacocat'.substring(4)", "cat"),
        ("'tacocat'.substring(0, 4)", "taco"),
        ("'tacocat'.substring(2, 1)", "error: invalid substring range. start: 2, end: 1"),
        ("'abc'.substring(4)", "error: index out of range: 4"),
        ("'  x \\t'.trim()", "x"),
        ("'gums'.reverse()", "smug"),
        ("strings.quote('a\"b\\n')", "\"a\\\"b\\n\""),
        ("self.words.join(',')", "b,a,c"),
        ("self.l.join(',')", "error: no such overload"),
    ]);
}

#[test]
fn format_of_strings() {
    check(&[
        ("'%s is %d'.format(['x', 3])", "refused: expected type 'string' but found 'int'"),
        ("'%s is %s'.format(['x', 'y'])", "x is y"),
        ("'%d%%'.format([50])", "50%"),
        ("'%.2f'.format([3.14159])", "3.14"),
        ("'%f'.format([1.5])", "1.500000"),
        ("'%e'.format([1234.5])", "1.234500e+03"),
        ("'%.1e'.format([1234.5])", "1.2e+03"),
        ("'%b %o'.format([5, 8])", "101 10"),
        ("'%x %X'.format([255, 255])", "ff FF"),
        ("'%x'.format([-255])", "-ff"),
        ("'%x'.format(['abc'])", "616263"),
        ("'%b'.format([true])", "1"),
        ("'%s'.format([[1, 2]])", "[1, 2]"),
        ("'%s'.format([{'a': 'b'}])", "{\"a\": \"b\"}"),
        ("'%s %s'.format([dyn(null), 1.5])", "null 1.5"),
        ("'%s'.format([duration('1h')])", "3600s"),
        ("'%s'.format([timestamp(0)])", "1970-01-01T00:00:00Z"),
        ("'%s'.format([type(1)])", "int"),
        ("'%d'.format(['a'])", "error: error during formatting: %d clause cannot take a value of type string"),
        ("'%s %s'.format(['a'])", "error: index 1 out of range"),
        ("'%q'.format(['a'])", "error: could not parse formatting clause: unrecognized formatting clause \"q\""),
        ("'%'.format(['a'])", "error: unexpected end of format string"),
        (
            "'%s'.format([self])".trim(),
            "{\"a\": 1, \"big\": 9223372036854775807, \"d\": 1.5, \"empty\": [], \"l\": [1, 2, 3], \"m\": {\"x\": \"y\"}, \"n\": null, \"nested\": {\"list\": [{\"k\": \"v\"}]}, \"s\": \"abc\", \"t\": \"2026-01-02T03:04:05Z\", \"words\": [\"b\", \"a\", \"c\"]}",
        ),
    ]);
}

#[test]
fn lists() {
    check(&[
        ("[1, 2, 3].isSorted() && !['b', 'a'].isSorted() && [].isSorted()", "true"),
        ("[1, 3].sum() + [].sum()", "4"),
        ("[1.5, 2.5].sum()", "4"),
        ("[duration('1m'), duration('1s')].sum()", "61s"),
        ("[9223372036854775807, 1].sum()", "error: integer overflow"),
        ("[3, 1, 2].min()", "1"),
        ("['b', 'c', 'a'].max()", "c"),
        ("self.l.max()", "3"),
        ("self.empty.max()", "error: max called on empty list"),
        ("self.empty.min()", "error: min called on empty list"),
        ("[1, 2, 2, 3].indexOf(2)", "1"),
        ("[1, 2, 2, 3].lastIndexOf(2)", "2"),
        ("['a'].indexOf('b')", "-1"),
        ("self.words.isSorted()", "false"),
        ("[1, 2] + [3]", "[1, 2, 3]"),
        ("[1] + ['a']", "refused: found no matching overload for '_+_' applied to '(list(int), list(string))'"),
        ("[3, 1, 3].distinct()", "[3, 1]"),
        ("[3, 1, 2].sort()", "[1, 2, 3]"),
        ("['bbb', 'a', 'cc'].sortBy(word, word.size())", "[\"a\", \"cc\", \"bbb\"]"),
        ("self.words.sortBy(word, word)", "[\"a\", \"b\", \"c\"]"),
        ("[[2, 1], [1]].sortBy(inner, inner.sortBy(i, i)[0]).sortBy(inner, -size(inner))", "[[2, 1], [1]]"),
        ("[].sortBy(i, i)", "[]"),
        (
            "[1, 2].sortBy(i, [i])",
            "refused: found no matching overload for '@sortByAssociatedKeys' applied to 'list(int).(list(list(int)))'",
        ),
        ("[1, 2].sortBy(i, i == 1 ? dyn(1) : dyn('a'))", "error: no such overload"),
        ("[1, 2].sortBy(1, 2)", "refused: argument must be a simple name"),
        ("[[[1, 2]], [[3]]].flatten(2)", "[1, 2, 3]"),
        ("[[[1, 2]], [[3]]].flatten(1)", "[[1, 2], [3]]"),
        ("[dyn([1]), dyn(2)].flatten(5)", "[1, 2]"),
        ("[[1]].flatten(0)", "[[1]]"),
        ("[[1]].flatten(-1)", "error: level must be non-negative"),
        ("[1, 2, 3].reverse()", "[3, 2, 1]"),
        ("[1, 2, 3, 4].slice(1, 3)", "[2, 3]"),
        ("[1, 2].slice(1, 3)", "error: cannot slice(1, 3), list is length 2"),
        ("[[1], [2, 3]].flatten()", "[1, 2, 3]"),
        ("[1, 2].first().value() + [1, 2].last().value()", "3"),
        ("[].first()", "optional.none()"),
        ("lists.range(3)", "[0, 1, 2]"),
        ("lists.range(-1)", "error: lists.range takes 0 to 100000, found -1"),
    ]);
}

#[test]
fn sets() {
    check(&[
        ("sets.contains([1, 2, 3], [2, 1])", "true"),
        ("sets.contains([1], [2])", "false"),
        ("sets.contains([], [])", "true"),
        ("sets.equivalent([1, 1, 2], [2, 1])", "true"),
        ("sets.equivalent([1], [1, 2])", "false"),
        ("sets.intersects([1, 2], [2, 3])", "true"),
        ("sets.intersects([1], [])", "false"),
        ("sets.contains(self.words, ['a'])", "true"),
    ]);
}

#[test]
fn math() {
    check(&[
        ("math.greatest(1, 5)", "5"),
        ("math.greatest(1, 2.5, 2u)", "2.5"),
        ("math.least([3, 1, 2])", "1"),
        ("math.least(-1.5, 2.0)", "-1.5"),
        ("math.greatest(self.l)", "3"),
        ("math.greatest(self.empty)", "error: list must not be empty"),
        ("math.ceil(1.2) + math.floor(1.8) + math.round(1.5) + math.trunc(-1.7)", "4"),
        ("math.abs(-3) + math.abs(3)", "6"),
        ("math.abs(-9223372036854775808)", "error: integer overflow"),
        ("math.sign(-2.5) == -1.0 && math.sign(0) == 0 && math.sign(5u) == 1u", "true"),
        ("math.isNaN(0.0 / 0.0) && math.isInf(1.0 / 0.0) && math.isFinite(1.0)", "true"),
        ("math.bitAnd(6, 3) + math.bitOr(6, 3) * 10 + math.bitXor(6, 3) * 100", "572"),
        ("math.bitNot(0)", "-1"),
        ("math.bitShiftLeft(1, 4) + math.bitShiftRight(16, 2)", "20"),
        ("math.bitShiftLeft(1, 64)", "0"),
        ("math.bitShiftLeft(1, -1)", "error: math.bitShift() negative offset: -1"),
        ("math.sqrt(81)", "9"),
    ]);
}

#[test]
fn base64() {
    check(&[
        ("base64.encode(b'hello')", "aGVsbG8="),
        ("string(base64.decode('aGVsbG8='))", "hello"),
        ("string(base64.decode('aGVsbG8'))", "hello"),
        ("jsonpatch.escapeKey('a/b~c')", "a~1b~0c"),
    ]);
}
