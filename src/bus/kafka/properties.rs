//! Settings for Kafka clients: `--kafka-config KEY=VALUE`, and files of them as the Java tools and librdkafka read them.
//!
//! Settings that the Java client spells its own way (a login in `sasl.jaas.config`, a truststore in PEM) are brought into
//! librdkafka's words, so that one file serves both. Used by [`super::KafkaBus`] and by the command line as a client.

/// One setting.
pub type Property = (String, String);

/// Reads `KEY=VALUE`.
pub fn read_property(text: &str) -> Result<Property, String> {
    let (key, value) = text.split_once('=').ok_or_else(|| "write KEY=VALUE, as in security.protocol=SASL_SSL".to_owned())?;
    match translated(key.trim(), value.trim())?.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(format!("{} stands for several settings; write it into a file (--kafka-config-file)", key.trim())),
    }
}

/// The settings of a file.
#[derive(Clone, Debug)]
pub struct Properties(pub Vec<Property>);

/// Reads a file of settings, one a line.
pub fn read_file(path: &str) -> Result<Properties, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("could not read {path}: {e}"))?;
    read_text(&text).map(Properties)
}

fn read_text(text: &str) -> Result<Vec<Property>, String> {
    let mut all = Vec::new();
    let mut whole = String::new();
    for line in text.lines() {
        let line = line.trim();
        if whole.is_empty() && (line.is_empty() || line.starts_with(['#', '!'])) {
            continue;
        }
        // A line may go on in the next one.
        if let Some(begun) = line.strip_suffix('\\') {
            whole.push_str(begun);
            continue;
        }
        whole.push_str(line);
        let said = std::mem::take(&mut whole);
        // What is wrong with a line is told without its value, which may be a password.
        let (key, value) = said.split_once('=').ok_or("a line of the file is not KEY=VALUE")?;
        all.extend(translated(key.trim(), value.trim())?);
    }
    Ok(all)
}

/// A setting in librdkafka's words.
fn translated(key: &str, value: &str) -> Result<Vec<Property>, String> {
    let one = |key: &str, value: &str| Ok(vec![(key.to_owned(), value.to_owned())]);
    match key {
        "" => Err("a setting needs a key".to_owned()),
        "sasl.jaas.config" => match (quoted(value, "username"), quoted(value, "password")) {
            (Some(user), Some(password)) => Ok(vec![("sasl.username".to_owned(), user), ("sasl.password".to_owned(), password)]),
            _ => Err("sasl.jaas.config: expected username=\"..\" and password=\"..\"".to_owned()),
        },
        "ssl.truststore.location" => one("ssl.ca.location", value),
        "ssl.truststore.certificates" => one("ssl.ca.pem", value),
        "ssl.truststore.type" if value.eq_ignore_ascii_case("pem") => Ok(Vec::new()),
        "ssl.truststore.type" | "ssl.truststore.password" => Err(format!("{key}: certificates are read in PEM (ssl.ca.location)")),
        "ssl.keystore.certificate.chain" => one("ssl.certificate.pem", value),
        "ssl.keystore.key" => one("ssl.key.pem", value),
        "ssl.endpoint.identification.algorithm" if value.is_empty() => one(key, "none"),
        _ => one(key, value),
    }
}

/// What stands in quotes behind `name=`.
fn quoted(text: &str, name: &str) -> Option<String> {
    let (before, rest) = text.split_once(&format!("{name}=\""))?;
    if before.ends_with(|c: char| c.is_alphanumeric()) {
        return None;
    }
    let mut out = String::new();
    let mut all = rest.chars();
    loop {
        match all.next()? {
            '"' => return Some(out),
            '\\' => out.push(all.next()?),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_java_tools_is_read_in_librdkafkas_words() {
        let text = "# who I am\nsecurity.protocol=SASL_SSL\nsasl.mechanism = SCRAM-SHA-256\n\
                    sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \\\n  username=\"alice\" password=\"a=\\\"b\";\n\
                    ssl.truststore.type=PEM\nssl.truststore.location=/etc/ca.pem\nssl.endpoint.identification.algorithm=\n";
        let read: Vec<String> = read_text(text).unwrap().into_iter().map(|(k, v)| format!("{k}={v}")).collect();
        let expected = [
            "security.protocol=SASL_SSL",
            "sasl.mechanism=SCRAM-SHA-256",
            "sasl.username=alice",
            "sasl.password=a=\"b",
            "ssl.ca.location=/etc/ca.pem",
            "ssl.endpoint.identification.algorithm=none",
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn what_does_not_fit_is_told_without_its_value() {
        assert_eq!(read_property("sasl.password=a=b").unwrap(), ("sasl.password".to_owned(), "a=b".to_owned()));
        for wrong in ["secret", "sasl.jaas.config=x secret", "ssl.truststore.password=secret", "=secret"] {
            let told = read_property(wrong).unwrap_err();
            assert!(!told.contains("secret"), "{told}");
        }
        assert!(!read_text("secret").unwrap_err().contains("secret"));
    }
}
