//! The page of supported APIs, made from the table that answers ApiVersions, so that it cannot say anything else.
//!
//! The page lies beside this file as `SUPPORTED.md`; a test compares it (`UPDATE_EXPECT=1 cargo test` writes it).
//! Called by that test, and by whoever wants to show the page.

use super::api::APIS;

const HEAD: &str = "\
# Supported Kafka APIs

What the built-in broker serves, by Kafka's names and numbers. A client asks with ApiVersions and gets these ranges; a request
outside them closes its connection, as Apache Kafka does. This page is made from the table that answers ApiVersions (`api.rs`).
Where answers differ from Apache Kafka's on purpose is listed in [intended.md](../../tests/differential/intended.md), which the
differential test there holds us to.

| Key | API | Versions | What it does |
|---:|---|---|---|
";

/// The supported APIs as a page of Markdown.
#[must_use]
pub fn supported_apis() -> String {
    let mut page = HEAD.to_owned();
    let mut notes = String::new();
    for api in APIS {
        let versions = if api.min == api.max { api.min.to_string() } else { format!("{} to {}", api.min, api.max) };
        let mark = if api.advertised_min == api.min { "" } else { " (1)" };
        page.push_str(&format!("| {} | {} | {versions}{mark} | {} |\n", api.key.code(), api.name, api.about.trim()));
        if !mark.is_empty() {
            notes = format!(
                "\n(1) {} is advertised from version {} on, since librdkafka takes a broker without it for one that cannot decompress and\n\
                 stops compressing (KAFKA-18659). Requests below version {} are refused, as in Apache Kafka.\n",
                api.name, api.advertised_min, api.min
            );
        }
    }
    page.push_str(&notes);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_is_what_the_table_says() {
        expect_test::expect_file!["SUPPORTED.md"].assert_eq(&supported_apis());
    }
}
