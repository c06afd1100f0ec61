use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema::{Member, Raw, Schema, Type, Value};

fn facts_of(values: &[&str]) -> Facts {
    let mut facts = Facts::default();
    for value in values {
        facts.observe(&record(value.as_bytes()));
    }
    facts
}

fn record(value: &[u8]) -> Record {
    Record {
        offset: 0,
        timestamp: 0,
        key: None,
        value: Some(Bytes::copy_from_slice(value)),
        headers: Vec::new(),
    }
}

fn resolved(values: &[&str]) -> (Schema, u64) {
    Schema::resolve(&facts_of(values), None)
}

fn member(name: &str, of: Type) -> Member {
    Member { name: name.to_owned(), of }
}

/// The stored form of schemas: a change of these lines is a change of the format.
#[test]
fn golden_schemas() {
    let cases: [(&[&str], &str, u64); 9] = [
        (
            &[r#"{"b":1,"a":"x"}"#, r#"{"a":null,"c":true,"b":2}"#],
            r#"{"struct":[{"name":"a","of":"text"},{"name":"b","of":"int"},{"name":"c","of":"bool"}]}"#,
            0,
        ),
        (&[r#"{"n":1}"#, r#"{"n":2.5}"#], r#"{"struct":[{"name":"n","of":"double"}]}"#, 0),
        (&[r#"{"n":1}"#, r#"{"n":"x"}"#], r#"{"struct":[{"name":"n","of":"json"}]}"#, 1),
        (
            &[r#"{"n":9007199254740993}"#, r#"{"n":0.5}"#],
            r#"{"struct":[{"name":"n","of":"json"}]}"#,
            1,
        ),
        (&[r#"{"n":18446744073709551615}"#], r#"{"struct":[{"name":"n","of":"json"}]}"#, 1),
        (
            &[r#"{"o":{"x":[1,null,2.5]},"e":{},"l":[]}"#],
            r#"{"struct":[{"name":"e","of":"json"},{"name":"l","of":{"list":"text"}},{"name":"o","of":{"struct":[{"name":"x","of":{"list":"double"}}]}}]}"#,
            0,
        ),
        (&[r#"{"o":{"a":1,"a":2}}"#], r#"{"struct":[{"name":"o","of":"json"}]}"#, 1),
        (&[r#"{"a":1}"#, "not json"], r#"{"raw":"text"}"#, 1),
        (&[r#"{"a":1}"#, "[1]"], r#"{"raw":"text"}"#, 1),
    ];
    for (values, expected, conflicts) in cases {
        let (schema, seen) = resolved(values);
        assert_eq!(serde_json::to_string(&schema.value).expect("json"), expected, "{values:?}");
        assert_eq!(seen, conflicts, "{values:?}");
        let whole =
            format!(r#"{{"version":1,"key":"text","header_key":"text","value":{expected}}}"#);
        assert_eq!(String::from_utf8(schema.to_bytes()).expect("text"), whole);
        assert_eq!(Schema::from_bytes(whole.as_bytes()).expect("reads back"), schema);
    }
}

#[test]
fn bytes_that_are_no_text_make_binary_columns() {
    let mut facts = facts_of(&[r#"{"a":1}"#]);
    facts.observe(&Record { key: Some(Bytes::from_static(b"\xff")), ..record(b"\xfe") });
    let (schema, _) = Schema::resolve(&facts, None);
    assert_eq!((schema.key, schema.value), (Raw::Binary, Value::Raw(Raw::Binary)));
}

#[test]
fn a_path_of_nulls_keeps_the_type_it_had() {
    let (before, _) = resolved(&[r#"{"a":1,"o":{"x":2.5},"l":[true]}"#]);
    let (schema, _) =
        Schema::resolve(&facts_of(&[r#"{"a":null,"o":{"x":null},"l":[]}"#]), Some(&before));
    assert_eq!(schema, before);
    let (schema, _) = Schema::resolve(&facts_of(&[r#"{"a":"now text"}"#]), Some(&before));
    assert_eq!(schema.value, Value::Struct(vec![member("a", Type::Text)]));
    let (schema, _) = Schema::resolve(&Facts::default(), Some(&before));
    assert_eq!(schema, before);
}

#[test]
fn a_path_of_nulls_without_a_type_is_left_out() {
    let (schema, _) = resolved(&[r#"{"a":null,"b":1,"o":{"x":null},"l":[null]}"#]);
    let text_x = Type::Struct(vec![member("x", Type::Text)]);
    let list = Type::List(Box::new(Type::Text));
    let members = vec![member("b", Type::Int), member("l", list), member("o", text_x)];
    assert_eq!(schema.value, Value::Struct(members));
    let (schema, _) = resolved(&[r#"{"a":null}"#]);
    assert_eq!(schema.value, Value::Struct(vec![member("a", Type::Text)]));
}

#[test]
fn hostile_shapes_become_text_in_bounded_memory() {
    let names: String = (0..=FIELDS_MAX).map(|n| format!("\"f{n}\":1,")).collect();
    let (schema, _) = resolved(&[&format!("{{\"o\":{{{}}}}}", names.trim_end_matches(','))]);
    assert_eq!(schema.value, Value::Struct(vec![member("o", Type::Json)]));
    let deep = format!("{}1{}", r#"{"a":"#.repeat(40), "}".repeat(40));
    let (schema, _) = resolved(&[&deep]);
    assert!(serde_json::to_string(&schema).expect("json").contains("json"));
    let bottomless = "[".repeat(100_000);
    let (schema, _) = resolved(&[&format!("{{\"a\":{bottomless}")]);
    assert_eq!(schema.value, Value::Raw(Raw::Text));
    let wide: Vec<String> = (0..12)
        .map(|n| {
            let names: String = (0..990).map(|m| format!("\"f{m}\":1,")).collect();
            format!("{{\"o{n}\":{{{}}}}}", names.trim_end_matches(','))
        })
        .collect();
    let (schema, _) = resolved(&wide.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(schema.value, Value::Raw(Raw::Text));
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        (-1000i64..1000).prop_map(|n| json!(n)),
        (-1e9f64..1e9).prop_map(|x| json!(x)),
        "[a-z]{0,3}".prop_map(|s| json!(s)),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn joining_parts_is_observing_the_whole(
        values in prop::collection::vec(prop::collection::btree_map("[a-d]", any_json(), 0..4), 1..12),
        split in 0usize..12,
    ) {
        let texts: Vec<String> =
            values.iter().map(|value| serde_json::to_string(value).expect("json")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let whole = resolved(&texts);
        let (left, right) = texts.split_at(split.min(texts.len()));
        let (mut one, mut other) = (facts_of(left), facts_of(right));
        one.merge(facts_of(right));
        other.merge(facts_of(left));
        prop_assert_eq!(&Schema::resolve(&one, None), &whole);
        prop_assert_eq!(&Schema::resolve(&other, None), &whole);
    }
}
