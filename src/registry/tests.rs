//! The registry over HTTP: what is asked how often, and what its errors say.

use serde_json::json;

use super::double::RegistryDouble;
use super::*;

fn of(double: &RegistryDouble) -> Arc<Registry> {
    Arc::new(Registry::new(&double.url).unwrap())
}

fn text_of(known: Option<Known>) -> Option<String> {
    match known {
        Some(Known::Schema(schema)) => Some(schema.text.clone()),
        _ => None,
    }
}

#[tokio::test]
async fn a_schema_is_asked_for_once_and_what_is_missing_not_again_soon() {
    let double = RegistryDouble::start();
    let id = double.add("v-value", &json!({ "schema": "\"string\"" }));
    let registry = of(&double);
    assert!(registry.known(id).is_none() && double.shelf.lock().asked.is_empty());
    registry.fetch(id).await.unwrap();
    registry.fetch(77).await.unwrap();
    for _ in 0..3 {
        assert_eq!(text_of(registry.known(id)).as_deref(), Some("\"string\""));
        assert!(matches!(registry.known(77), Some(Known::Missing)));
    }
    assert_eq!(double.shelf.lock().asked, ["GET /schemas/ids/1", "GET /schemas/ids/77"]);
}

#[tokio::test]
async fn what_a_schema_leans_on_comes_before_it_however_far() {
    let double = RegistryDouble::start();
    double.add("base", &json!({ "schema": "base" }));
    double.add("mid dle", &json!({ "schema": "middle", "references": [{ "name": "b", "subject": "base", "version": 1 }] }));
    let references = json!([{ "name": "m", "subject": "mid%20dle", "version": 1 }, { "name": "b", "subject": "base", "version": 1 }]);
    let id = double.add("top", &json!({ "schema": "top", "schemaType": "PROTOBUF", "references": references }));
    // The double compares paths as they are, so the subject is kept escaped there.
    double.shelf.lock().subjects[1].0 = "mid%2520dle".to_owned();
    let registry = of(&double);
    registry.fetch(id).await.unwrap();
    let Some(Known::Schema(schema)) = registry.known(id) else { panic!("it was there") };
    assert_eq!(schema.kind, SchemaKind::Protobuf);
    let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    assert_eq!(schema.references, [pair("b", "base"), pair("m", "middle")]);
}

#[tokio::test]
async fn a_schema_is_registered_once_a_subject() {
    let double = RegistryDouble::start();
    let registry = of(&double);
    for _ in 0..2 {
        assert_eq!(registry.register("a-value", SchemaKind::Avro, "\"int\"").await, Ok(1));
        assert_eq!(registry.register("a-value", SchemaKind::Protobuf, "syntax").await, Ok(2));
    }
    assert_eq!(double.shelf.lock().asked.len(), 2);
    assert_eq!(double.shelf.lock().schemas[1]["schemaType"], "PROTOBUF");
    assert_eq!(registry.latest("a-value").await.unwrap().unwrap().text, "syntax");
    assert_eq!(registry.latest("b-value").await, Ok(None));
}

#[tokio::test]
async fn errors_name_the_registry_and_what_was_asked_for() {
    let double = RegistryDouble::start();
    let registry = of(&double);
    let refused = registry.register("closed-value", SchemaKind::Avro, "\"int\"").await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "the schema registry {} refuses a schema for subject \"closed-value\": AVRO schema is incompatible with an earlier one (status 409)",
            double.url
        )
    );
    assert!(!refused.is_passing());
    double.shelf.lock().ill = Some((503, String::new()));
    let ill = registry.fetch(3).await.unwrap_err();
    assert!(ill.is_passing(), "{ill}");
    assert!(ill.to_string().contains("refuses schema 3: it does not say why (status 503)"), "{ill}");
    double.shelf.lock().ill = Some((404, "<html>".to_owned()));
    assert!(!registry.fetch(3).await.unwrap_err().is_passing(), "another server's 404 does not say that the schema is missing");
    double.shelf.lock().ill = Some((200, "{}".to_owned()));
    let odd = registry.fetch(3).await.unwrap_err().to_string();
    assert!(odd.contains("gives no usable answer for schema 3"), "{odd}");
    double.shelf.lock().ill = Some((200, format!("{{\"schema\":\"{}\"}}", "x".repeat(MAX_ANSWER as usize))));
    let long = registry.fetch(3).await.unwrap_err();
    assert!(matches!(long, RegistryError::Unreachable { .. }), "{long:?}");
    assert!(registry.known(3).is_none());
    let url = double.url.clone();
    drop(double);
    let gone = Arc::new(Registry::new("http://127.0.0.1:1/base/").unwrap()).fetch(3).await.unwrap_err();
    assert!(gone.is_passing() && gone.to_string().starts_with("could not ask the schema registry http://127.0.0.1:1/base for schema 3: "));
    assert_ne!(url, "http://127.0.0.1:1");
}

#[test]
fn an_address_is_http_and_carries_no_password() {
    for bad in ["", "localhost:8081", "http://", "http:///x", "ftp://x", "http://a b", "http://user:word@host", "http://h?q=1"] {
        assert!(matches!(Registry::new(bad), Err(RegistryError::Address(_))), "{bad}");
    }
    let told = Registry::new("https://user:word@host/p").unwrap_err().to_string();
    assert!(told.starts_with("\"https://***@host/p\" is no address") && !told.contains("word\""), "{told}");
    assert_eq!(Registry::new("https://registry:8081/").unwrap().url(), "https://registry:8081");
}

#[tokio::test]
async fn what_a_schema_leans_on_is_bounded() {
    let double = RegistryDouble::start();
    double.add("small", &json!({ "schema": "small" }));
    double.add("long", &json!({ "schema": "x".repeat(1 << 20) }));
    let leaning = |subject: &str, count: usize| {
        let references = (0..count).map(|n| json!({ "name": format!("n{n}"), "subject": subject, "version": 1 }));
        json!({ "schema": format!("{subject} {count}"), "references": references.collect::<Vec<_>>() })
    };
    // One that leans on itself, by a name that it has begun already.
    let ring = double.add("ring", &leaning("ring", 1));
    let (few, many, heavy) =
        (double.add("few", &leaning("small", 64)), double.add("many", &leaning("small", 65)), double.add("heavy", &leaning("long", 2)));
    let registry = of(&double);
    registry.fetch(ring).await.unwrap();
    registry.fetch(few).await.unwrap();
    let error = registry.fetch(many).await.unwrap_err().to_string();
    assert!(error.contains("it leans on more than 64 others"), "{error}");
    let error = registry.fetch(heavy).await.unwrap_err().to_string();
    assert!(error.contains("it and what it leans on are longer than 2097152 bytes"), "{error}");
}

#[tokio::test]
async fn a_registry_that_takes_a_question_and_never_answers_is_left() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let registry = Arc::new(Registry::new(&format!("http://{}", silent.local_addr().unwrap())).unwrap());
    let begun = Instant::now();
    let error = registry.fetch(1).await.unwrap_err();
    assert!(error.is_passing() && begun.elapsed() < 4 * PATIENCE, "{error} after {:?}", begun.elapsed());
    assert!(registry.known(1).is_none(), "it may answer another time");
}
