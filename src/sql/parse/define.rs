//! The CREATE statements, and what their parts must be to one another.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::{column_list, end, kind, last_name, name, rest, select, shown};
use crate::record::TopicName;
use crate::sql::dialect::columns::{Elements, columns_of, elements, next_words, with_options};
use crate::sql::dialect::refuse;
use crate::sql::dialect::tokens::{word, words_at};
use crate::sql::error::{Code, Place, SqlError, did_you_mean, nearest};
use crate::sql::options::{AlertOptions, FormatName, Options, QueryOptions, STREAM_OPTIONS, Start, StreamOptions};
use crate::sql::spelling;
use crate::sql::statement::{
    Column, ColumnSource, CreateAlert, CreateFunction, CreateLike, CreatePlainView, CreateQuery, CreateSavepoint, CreateStream,
    CreateTable, Emit, Kind, Metadata, Name, Parameter, Statement,
};
use crate::sql::types::{arrow_type, sql_type};

/// The longest name of a query or alert: room is left for what is put around it in names of topics.
const MAX_NAME: usize = 200;

pub(super) fn create(tokens: &[TokenWithSpan]) -> Result<Statement, SqlError> {
    let or_replace = words_at(tokens, 1, &["OR", "REPLACE"]);
    let at = if or_replace { 3 } else { 1 };
    let Some(what) = tokens.get(at) else {
        return Err(SqlError::syntax("CREATE does not say what")
            .hint("write CREATE STREAM, TABLE, QUERY, MATERIALIZED VIEW, VIEW, ALERT, FUNCTION or SAVEPOINT"));
    };
    let place = Place::of(what.span);
    let written = word(what).map(str::to_ascii_uppercase).unwrap_or_default();
    let mut p = rest(tokens, at + 1);
    match written.as_str() {
        "STREAM" | "SOURCE" => create_stream(&mut p, or_replace),
        "TABLE" => create_table(&mut p, or_replace),
        "QUERY" => create_query(&mut p, &tokens[at + 1..], or_replace),
        "ALERT" => create_alert(&mut p, &tokens[at + 1..], or_replace),
        "FUNCTION" => create_function(&mut p, or_replace),
        "SAVEPOINT" if or_replace => Err(SqlError::not_supported("CREATE OR REPLACE SAVEPOINT")
            .at(place)
            .hint("choose another name, or DROP SAVEPOINT first: one that is there is not lost by a slip")),
        "SAVEPOINT" => create_savepoint(&mut p),
        "MATERIALIZED" if words_at(tokens, at + 1, &["VIEW"]) => create_view(&mut rest(tokens, at + 2), &tokens[at + 2..], or_replace),
        "VIEW" => create_plain_view(&mut p, &tokens[at + 1..], or_replace),
        "TEMPORARY" | "TEMP" if words_at(tokens, at + 1, &["VIEW"]) => Err(SqlError::not_supported(&format!("CREATE {written} VIEW"))
            .at(place)
            .hint("write CREATE VIEW v AS ..: it is there until it is dropped")),
        "SINK" => Err(SqlError::not_supported("CREATE SINK").at(place).hint("write CREATE QUERY q AS INSERT INTO s SELECT ..")),
        "AGGREGATE" | "INDEX" | "CONNECTION" | "DATABASE" | "SCHEMA" | "TOPIC" | "TEMPORARY" | "TEMP" | "EXTERNAL" | "SUBSCRIPTION"
        | "SECRET" | "USER" | "ROLE" | "TYPE" | "SEQUENCE" | "TRIGGER" | "UNBOUNDED" => {
            Err(SqlError::not_supported(&format!("CREATE {written}")).at(place))
        }
        _ => {
            let hint = nearest(&written, ["STREAM", "TABLE", "QUERY", "MATERIALIZED", "ALERT", "SOURCE", "FUNCTION", "SAVEPOINT"])
                .map(|w| format!("did you mean {w}?"));
            Err(SqlError::syntax(format!("cannot create {}", shown(what)))
                .at(place)
                .hint(hint.unwrap_or_else(|| "write STREAM, TABLE, QUERY, MATERIALIZED VIEW, ALERT, FUNCTION or SAVEPOINT".to_owned())))
        }
    }
}

fn if_not_exists(p: &mut Parser<'_>, or_replace: bool) -> Result<bool, SqlError> {
    let place = crate::sql::dialect::columns::here(p);
    let said = p.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    if said && or_replace {
        return Err(SqlError::syntax("OR REPLACE and IF NOT EXISTS do not go together").at(place).hint("keep one of them"));
    }
    Ok(said)
}

fn create_savepoint(p: &mut Parser<'_>) -> Result<Statement, SqlError> {
    let (name, if_not_exists) = task_name(p, "savepoint", false)?;
    if !p.parse_keyword(Keyword::FOR) {
        return Err(unexpected(&p.peek_token(), "FOR").hint(format!("write CREATE SAVEPOINT {name} FOR QUERY q")));
    }
    let kind = kind(p, &[Kind::Query, Kind::View, Kind::Alert])?;
    let of = last_name(p, kind)?;
    Ok(Statement::CreateSavepoint(CreateSavepoint { name, if_not_exists, kind, of }))
}

fn create_function(p: &mut Parser<'_>, or_replace: bool) -> Result<Statement, SqlError> {
    const EXAMPLE: &str = "write CREATE FUNCTION f(x DOUBLE) RETURNS DOUBLE RETURN x * 2";
    let if_not_exists = if_not_exists(p, or_replace)?;
    let name = name(p, "function")?;
    let expect = |p: &mut Parser<'_>, token: &Token| {
        let found = p.next_token();
        if found.token == *token { Ok(()) } else { Err(unexpected(&found, &token.to_string()).hint(EXAMPLE)) }
    };
    expect(p, &Token::LParen)?;
    let mut parameters: Vec<Parameter> = Vec::new();
    while p.peek_token().token != Token::RParen {
        if !parameters.is_empty() {
            expect(p, &Token::Comma)?;
        }
        let name = super::name(p, "parameter")?;
        if parameters.iter().any(|p| p.name == name) {
            return Err(SqlError::new(Code::BadDefinition, format!("parameter \"{name}\" is there twice")).at(name.place));
        }
        let (written, data_type) = type_of(p)?;
        parameters.push(Parameter { name, written, data_type });
    }
    expect(p, &Token::RParen)?;
    if !next_words(p, &["RETURNS"]) {
        return Err(unexpected(&p.peek_token(), "RETURNS").hint(EXAMPLE));
    }
    p.next_token();
    let (returns, returned) = type_of(p)?;
    while next_words(p, &["LANGUAGE", "SQL"]) || next_words(p, &["IMMUTABLE"]) || next_words(p, &["DETERMINISTIC"]) {
        if next_words(p, &["LANGUAGE"]) {
            p.next_token();
        }
        p.next_token();
    }
    let token = p.peek_token();
    let other = ["LANGUAGE", "AS", "BEGIN", "VOLATILE", "STABLE", "STRICT", "CALLED", "NOT"].iter().find(|w| next_words(p, &[w]));
    if let Some(other) = other {
        return Err(SqlError::not_supported(&format!("{other} in CREATE FUNCTION")).at(Place::of(token.span)).hint(EXAMPLE));
    }
    if !next_words(p, &["RETURN"]) {
        return Err(unexpected(&token, "RETURN").hint(EXAMPLE));
    }
    p.next_token();
    let mut body = Box::new(p.parse_expr()?);
    spelling::normalize(body.as_mut())?;
    end(p)?;
    Ok(Statement::CreateFunction(Box::new(CreateFunction { name, or_replace, if_not_exists, parameters, returns, returned, body })))
}

fn unexpected(found: &TokenWithSpan, expected: &str) -> SqlError {
    SqlError::syntax(format!("expected {expected}, found {}", shown(found))).at(Place::of(found.span))
}

/// A type, as it is written and as Arrow knows it.
fn type_of(p: &mut Parser<'_>) -> Result<(ast::DataType, DataType), SqlError> {
    let at = Place::of(p.peek_token().span);
    let written = p.parse_data_type().map_err(|e| SqlError::from(e).at(at))?;
    let data_type = arrow_type(&written).map_err(|e| e.at(at))?;
    Ok((written, data_type))
}

fn create_stream(p: &mut Parser<'_>, or_replace: bool) -> Result<Statement, SqlError> {
    let if_not_exists = if_not_exists(p, or_replace)?;
    let name = name(p, "stream")?;
    if next_words(p, &["LIKE"]) {
        return create_like(p, name, or_replace, if_not_exists);
    }
    let found = columns(p, "stream", &name)?;
    if let Some(place) = found.primary_key_place {
        return Err(SqlError::new(Code::BadDefinition, "a stream has no primary key: it keeps every row")
            .at(place)
            .hint("write CREATE TABLE to keep the latest row a key, or 'key' in WITH for a stream's key"));
    }
    let options = StreamOptions::of_stream(with_options(p)?)?;
    end(p)?;
    check_columns(&found, &options, &name)?;
    Ok(Statement::CreateStream(CreateStream {
        name,
        or_replace,
        if_not_exists,
        columns: found.columns,
        watermark: found.watermark,
        options,
    }))
}

/// `LIKE SAMPLE OF TOPIC 't' [WITH (..)]`, at LIKE.
fn create_like(p: &mut Parser<'_>, name: Name, or_replace: bool, if_not_exists: bool) -> Result<Statement, SqlError> {
    const EXAMPLE: &str = "write CREATE STREAM s LIKE SAMPLE OF TOPIC 'vitals'";
    let place = crate::sql::dialect::columns::here(p);
    if !next_words(p, &["LIKE", "SAMPLE", "OF", "TOPIC"]) {
        return Err(SqlError::not_supported("CREATE STREAM .. LIKE another").at(place).hint(EXAMPLE));
    }
    (0..4).for_each(|_| drop(p.next_token()));
    let token = p.next_token();
    let topic_place = Place::of(token.span);
    let Token::SingleQuotedString(text) = &token.token else {
        return Err(SqlError::syntax(format!("expected the topic, found {}", shown(&token))).at(topic_place).hint(EXAMPLE));
    };
    let topic = TopicName::new(text).map_err(|why| SqlError::new(Code::BadDefinition, why.to_string()).at(topic_place))?;
    let options = Options::check("a stream", STREAM_OPTIONS, with_options(p)?)?;
    end(p)?;
    if let Some(twice) = options.written().iter().find(|g| g.name == "topic") {
        let error = SqlError::new(Code::BadOption, "the topic stands behind TOPIC already");
        return Err(error.at(twice.name_place).hint("leave option 'topic' out"));
    }
    Ok(Statement::CreateLike(CreateLike { name, or_replace, if_not_exists, topic, topic_place, given: options.written().to_vec() }))
}

fn create_table(p: &mut Parser<'_>, or_replace: bool) -> Result<Statement, SqlError> {
    let if_not_exists = if_not_exists(p, or_replace)?;
    let name = name(p, "table")?;
    let found = columns(p, "table", &name)?;
    let options = StreamOptions::of_table(with_options(p)?)?;
    end(p)?;
    if found.primary_key.is_empty() {
        return Err(SqlError::new(Code::BadDefinition, format!("table \"{name}\" has no primary key"))
            .at(name.place)
            .hint("add PRIMARY KEY (..) NOT ENFORCED, or write CREATE STREAM for rows that are only added"));
    }
    for (i, key) in found.primary_key.iter().enumerate() {
        let column = found.columns.iter().find(|c| c.name == *key).ok_or_else(|| no_column(key, &found.columns))?;
        if !matches!(column.source, ColumnSource::Value) {
            return Err(SqlError::new(Code::BadDefinition, format!("the key column \"{key}\" is not part of the record's value"))
                .at(key.place)
                .hint("choose a column without METADATA or AS"));
        }
        check_key(column, key.place)?;
        if matches!(column.data_type, Some(DataType::Float32 | DataType::Float64)) {
            return Err(SqlError::new(
                Code::BadType,
                format!("column \"{key}\" cannot be the key of a table: it is a floating point number"),
            )
            .at(key.place)
            .hint("choose text, DECIMAL, a whole number, a date or a time"));
        }
        if found.primary_key[..i].contains(key) {
            return Err(SqlError::new(Code::BadDefinition, format!("column \"{key}\" is in the key twice")).at(key.place));
        }
    }
    check_columns(&found, &options, &name)?;
    let mut columns = found.columns;
    for column in &mut columns {
        if found.primary_key.contains(&column.name) {
            column.nullable = false;
        }
    }
    Ok(Statement::CreateTable(CreateTable {
        name,
        or_replace,
        if_not_exists,
        columns,
        primary_key: found.primary_key,
        watermark: found.watermark,
        options,
    }))
}

fn columns(p: &mut Parser<'_>, kind: &str, name: &Name) -> Result<Elements, SqlError> {
    if next_words(p, &["AS"]) {
        let upper = kind.to_ascii_uppercase();
        return Err(SqlError::not_supported(&format!("CREATE {upper} .. AS SELECT"))
            .at(crate::sql::dialect::columns::here(p))
            .hint(format!("write CREATE QUERY q AS INSERT INTO {name} SELECT ..")));
    }
    elements(p)
}

/// What holds between the columns, the watermark and the options of a stream or table.
fn check_columns(found: &Elements, options: &StreamOptions, name: &Name) -> Result<(), SqlError> {
    let bad = |message: String, place: Option<Place>| SqlError::new(Code::BadDefinition, message).at(place);
    for (i, column) in found.columns.iter().enumerate() {
        if found.columns[..i].iter().any(|c| c.name == column.name) {
            return Err(bad(format!("there are two columns \"{}\"", column.name), column.name.place).hint("rename one of them"));
        }
        match &column.source {
            ColumnSource::Metadata(metadata) => check_metadata(column, *metadata)?,
            ColumnSource::Computed(expr) => {
                if let Some(missing) = columns_of(expr).iter().find(|n| !found.columns.iter().any(|c| c.name == **n)) {
                    return Err(no_column(missing, &found.columns));
                }
                if let Some(other) = columns_of(expr)
                    .iter()
                    .find(|n| found.columns.iter().any(|c| c.name == **n && matches!(c.source, ColumnSource::Computed(_))))
                {
                    return Err(bad(format!("the computed column \"{}\" reads the computed column \"{other}\"", column.name), other.place)
                        .hint("write the whole expression"));
                }
            }
            ColumnSource::Value => {}
        }
    }
    let values = found.columns.iter().filter(|c| matches!(c.source, ColumnSource::Value)).count();
    if values == 0 {
        return Err(bad(format!("\"{name}\" has no column of the record's value"), name.place).hint("add one without METADATA and AS"));
    }
    if options.format == FormatName::Raw {
        let text = found
            .columns
            .iter()
            .find(|c| matches!(c.source, ColumnSource::Value) && matches!(c.data_type, Some(DataType::Utf8 | DataType::Binary)));
        if values != 1 || text.is_none() {
            return Err(bad(
                "format raw needs exactly one column of the record's value, VARCHAR or BYTES".to_owned(),
                options.given.place("format").or(name.place),
            ));
        }
    }
    if let Some(watermark) = &found.watermark {
        let column =
            found.columns.iter().find(|c| c.name == watermark.column).ok_or_else(|| no_column(&watermark.column, &found.columns))?;
        if let Some(data_type) = &column.data_type
            && !matches!(data_type, DataType::Timestamp(..))
        {
            return Err(SqlError::new(
                Code::BadType,
                format!("event time must be a TIMESTAMP, and column \"{}\" is {}", column.name, sql_type(data_type)),
            )
            .at(watermark.column.place)
            .hint(format!("declare {} TIMESTAMP(3): numbers are read as epoch times then", column.name)));
        }
        if let Some(missing) = columns_of(&watermark.expr).iter().find(|n| !found.columns.iter().any(|c| c.name == **n)) {
            return Err(no_column(missing, &found.columns));
        }
    }
    for (i, key) in options.key.iter().enumerate() {
        let place = options.given.place("key");
        if options.key[..i].contains(key) {
            return Err(bad(format!("column \"{key}\" is in the key twice"), place));
        }
        let column = found
            .columns
            .iter()
            .find(|c| c.name.text == *key)
            .ok_or_else(|| no_column(&Name { text: key.clone(), place }, &found.columns))?;
        if !matches!(column.source, ColumnSource::Value) {
            return Err(bad(format!("the key column \"{key}\" is not part of the record's value"), place)
                .hint("choose a column without METADATA or AS"));
        }
        check_key(column, place)?;
    }
    if options.format == FormatName::Debezium && !options.key.is_empty() {
        let message = "a stream of format debezium has no 'key': its connector places records by the database's keys".to_owned();
        return Err(bad(message, options.given.place("key")).hint("leave it out"));
    }
    if options.key_partitioner.is_some() && options.key.is_empty() {
        return Err(
            bad("option 'key.partitioner' needs 'key'".to_owned(), options.given.place("key.partitioner")).hint("add 'key' = '<column>'")
        );
    }
    for option in options.given.written() {
        let owners = owners(&option.name);
        if !owners.is_empty() && !owners.contains(&options.format) {
            let formats = owners.iter().map(|f| f.word()).collect::<Vec<_>>().join(" or ");
            let message = format!("option '{}' is of format {formats}, and the format is {}", option.name, options.format.word());
            return Err(bad(message, option.name_place).hint(format!("leave it out, or write 'format' = '{}'", owners[0].word())));
        }
    }
    if options.csv_null.bytes().any(|b| b == options.csv_delimiter) {
        let message = "option 'csv.null' has the delimiter in it, and would be read as two fields".to_owned();
        return Err(bad(message, options.given.place("csv.null")).hint("write another 'csv.null' or 'csv.delimiter'"));
    }
    if options.format.has_registry() && options.registry_url.is_none() {
        let message = format!("format {} needs 'schema.registry.url'", options.format.word());
        return Err(bad(message, options.given.place("format")).hint("add 'schema.registry.url' = 'http://..'"));
    }
    for column in options.json_paths.keys() {
        let place = options.given.place(&format!("json.path.{column}"));
        let found = found
            .columns
            .iter()
            .find(|c| c.name.text == *column)
            .ok_or_else(|| no_column(&Name { text: column.clone(), place }, &found.columns))?;
        if !matches!(found.source, ColumnSource::Value) {
            return Err(bad(format!("column \"{column}\" is not read from JSON"), place));
        }
    }
    if options.topic.is_none()
        && let Err(why) = TopicName::new(&name.text)
    {
        return Err(
            bad(format!("\"{name}\" cannot be the name of a topic: {why}"), name.place).hint("name the topic: WITH ('topic' = '..')")
        );
    }
    if name.text.starts_with("__") {
        return Err(bad("names that begin with two underscores are the node's own".to_owned(), name.place).hint("choose another name"));
    }
    Ok(())
}

/// The formats that an option belongs to; none where it suits all.
fn owners(option: &str) -> &'static [FormatName] {
    match option.split_once('.').map(|(family, _)| family) {
        Some("csv") => &[FormatName::Csv],
        Some("json") => &[FormatName::Json, FormatName::Debezium],
        Some("schema") => &[FormatName::Avro, FormatName::Protobuf],
        _ => &[],
    }
}

/// A key is compared with the bytes of a record's key, so its values have one spelling: that of the cast to VARCHAR.
fn check_key(column: &Column, place: Option<Place>) -> Result<(), SqlError> {
    use DataType::{Boolean, Date32, Decimal128, Float32, Float64, Int8, Int16, Int32, Int64, Timestamp, Utf8};
    match &column.data_type {
        None | Some(Utf8 | Boolean | Int8 | Int16 | Int32 | Int64 | Date32 | Timestamp(_, None)) => Ok(()),
        Some(Decimal128(..) | Float32 | Float64) => Ok(()),
        Some(other) => Err(SqlError::new(Code::BadType, format!("column \"{}\" cannot be a key: it is {}", column.name, sql_type(other)))
            .at(place)
            .hint("choose text, a number, a date or a time")),
    }
}

fn check_metadata(column: &Column, metadata: Metadata) -> Result<(), SqlError> {
    let right = matches!(
        (metadata, &column.data_type),
        (Metadata::Partition, Some(DataType::Int32))
            | (Metadata::Offset, Some(DataType::Int64))
            | (Metadata::Timestamp, Some(DataType::Timestamp(TimeUnit::Millisecond, None)))
            | (Metadata::Key, Some(DataType::Utf8))
    );
    if right {
        return Ok(());
    }
    let wanted = match metadata {
        Metadata::Partition => "INT",
        Metadata::Offset => "BIGINT",
        Metadata::Timestamp => "TIMESTAMP(3)",
        Metadata::Key => "VARCHAR",
    };
    Err(SqlError::new(
        Code::BadType,
        format!("the record's {} is {wanted}, not {}", metadata.word(), column.data_type.as_ref().map(sql_type).unwrap_or_default()),
    )
    .at(column.name.place)
    .hint(format!("write {} {wanted} METADATA FROM '{}'", column.name, metadata.word())))
}

fn no_column(name: &Name, columns: &[Column]) -> SqlError {
    let names: Vec<&str> = columns.iter().map(|c| c.name.text.as_str()).collect();
    SqlError::new(Code::NoSuchColumn, format!("no column \"{name}\""))
        .at(name.place)
        .hint_opt(did_you_mean(&name.text, names.iter().copied()))
        .note(format!("columns: {}", names.join(", ")))
}

/// The name of a query or alert, which also names topics.
fn task_name(p: &mut Parser<'_>, kind: &str, or_replace: bool) -> Result<(Name, bool), SqlError> {
    let if_not_exists = if_not_exists(p, or_replace)?;
    let name = name(p, kind)?;
    let why = match TopicName::new(&name.text) {
        Err(why) => Some(why.to_string().replace("a topic's name", "it")),
        Ok(_) if name.text.len() > MAX_NAME => Some(format!("it has at most {MAX_NAME} letters")),
        Ok(_) if name.text.starts_with("__") => Some("names that begin with two underscores are the node's own".to_owned()),
        Ok(_) => None,
    };
    match why {
        Some(why) => Err(SqlError::new(Code::BadDefinition, format!("\"{name}\" cannot be the name of a {kind}: {why}")).at(name.place)),
        None => Ok((name, if_not_exists)),
    }
}

fn expect_as(p: &mut Parser<'_>, example: &str) -> Result<(), SqlError> {
    if p.parse_keyword(Keyword::AS) {
        return Ok(());
    }
    let token = p.peek_token();
    let hint = did_you_mean(&shown(&token).to_ascii_uppercase(), ["WITH", "AS"]).map(|h| h.replace('"', ""));
    Err(SqlError::syntax(format!("expected AS, found {}", shown(&token)))
        .at(Place::of(token.span))
        .hint(hint.unwrap_or_else(|| example.to_owned())))
}

fn create_query(p: &mut Parser<'_>, tokens: &[TokenWithSpan], or_replace: bool) -> Result<Statement, SqlError> {
    let (name, if_not_exists) = task_name(p, "query", or_replace)?;
    let options = QueryOptions::read(with_options(p)?)?;
    let example = format!("write CREATE QUERY {name} AS INSERT INTO s SELECT ..");
    expect_as(p, &example)?;
    if !p.parse_keywords(&[Keyword::INSERT, Keyword::INTO]) {
        let token = p.peek_token();
        return Err(SqlError::syntax(format!("expected INSERT INTO, found {}", shown(&token))).at(Place::of(token.span)).hint(example));
    }
    let insert_into = super::name(p, "stream")?;
    let insert_columns = column_list(p)?;
    let mut select = select(tokens.get(p.index()..).unwrap_or_default())?;
    select.state_ttl = options.state_ttl;
    refuse::on_streams(&select.query)?;
    reads_something(&select.reads, &name, "query")?;
    if select.reads.contains(&insert_into) {
        return Err(SqlError::not_supported("a query that reads what it writes")
            .at(select.reads.iter().find(|n| **n == insert_into).and_then(|n| n.place))
            .hint("write into another stream"));
    }
    if insert_into.text.starts_with("__") {
        return Err(
            SqlError::new(Code::BadDefinition, "streams whose names begin with two underscores are the node's own").at(insert_into.place)
        );
    }
    Ok(Statement::CreateQuery(Box::new(CreateQuery { name, or_replace, if_not_exists, options, insert_into, insert_columns, select })))
}

fn create_view(p: &mut Parser<'_>, tokens: &[TokenWithSpan], or_replace: bool) -> Result<Statement, SqlError> {
    let (name, if_not_exists) = task_name(p, "view", or_replace)?;
    let options = QueryOptions::read(with_options(p)?)?;
    if let Start::Savepoint(_) = &options.start {
        return Err(SqlError::new(
            Code::BadOption,
            "a view cannot begin from a savepoint: it would lack the rows that did not change since",
        )
        .at(options.given.place("start"))
        .hint("let a query begin from it, which writes into a stream or table: CREATE QUERY .. AS INSERT INTO .."));
    }
    expect_as(p, &format!("write CREATE MATERIALIZED VIEW {name} AS SELECT .."))?;
    let mut select = select(tokens.get(p.index()..).unwrap_or_default())?;
    select.state_ttl = options.state_ttl;
    if select.emit == Emit::Changes {
        return Err(SqlError::not_supported("EMIT CHANGES in a view")
            .at(select.emit_place)
            .hint("leave it out: what changes is written with the next commit; SUBSCRIBE TO a view shows it"));
    }
    refuse::on_streams(&select.query)?;
    reads_something(&select.reads, &name, "view")?;
    if let Some(own) = select.reads.iter().find(|read| **read == name) {
        return Err(SqlError::not_supported("a view that reads itself").at(own.place).hint("choose another name"));
    }
    let (insert_into, insert_columns) = (name.clone(), Vec::new());
    Ok(Statement::CreateView(Box::new(CreateQuery { name, or_replace, if_not_exists, options, insert_into, insert_columns, select })))
}

fn create_plain_view(p: &mut Parser<'_>, tokens: &[TokenWithSpan], or_replace: bool) -> Result<Statement, SqlError> {
    let (name, if_not_exists) = task_name(p, "view", or_replace)?;
    let columns = column_list(p)?;
    if next_words(p, &["WITH"]) {
        return Err(SqlError::not_supported("options of a view that is not materialized")
            .at(crate::sql::dialect::columns::here(p))
            .hint("give them to the query that reads it, or write CREATE MATERIALIZED VIEW"));
    }
    expect_as(p, &format!("write CREATE VIEW {name} AS SELECT .."))?;
    let select = select(tokens.get(p.index()..).unwrap_or_default())?;
    if select.emit != Emit::Unstated {
        return Err(SqlError::not_supported("EMIT in a view that is not materialized")
            .at(select.emit_place)
            .hint("say it where the view is read: the view is a name for a query's text"));
    }
    reads_something(&select.reads, &name, "view")?;
    if let Some(own) = select.reads.iter().find(|read| **read == name) {
        return Err(SqlError::not_supported("a view that reads itself").at(own.place).hint("choose another name"));
    }
    Ok(Statement::CreatePlainView(Box::new(CreatePlainView { name, or_replace, if_not_exists, columns, select })))
}

fn create_alert(p: &mut Parser<'_>, tokens: &[TokenWithSpan], or_replace: bool) -> Result<Statement, SqlError> {
    let (name, if_not_exists) = task_name(p, "alert", or_replace)?;
    let options = AlertOptions::read(with_options(p)?)?;
    expect_as(p, &format!("write CREATE ALERT {name} AS SELECT patient_id AS subject, ts, spo2 AS value, spo2 < 88 AS breach FROM .."))?;
    let select = select(tokens.get(p.index()..).unwrap_or_default())?;
    if let Emit::Changes | Emit::Update { .. } | Emit::WindowClose { grace: Some(_), .. } = select.emit {
        let clause = match select.emit {
            Emit::Changes => "EMIT CHANGES",
            Emit::Update { .. } => "EMIT ON UPDATE",
            _ => "WITH GRACE",
        };
        return Err(SqlError::not_supported(&format!("{clause} in an alert"))
            .at(select.emit_place)
            .hint("leave it out: an alert takes every row"));
    }
    refuse::on_streams(&select.query)?;
    reads_something(&select.reads, &name, "alert")?;
    Ok(Statement::CreateAlert(Box::new(CreateAlert { name, or_replace, if_not_exists, options, select })))
}

fn reads_something(reads: &[Name], name: &Name, kind: &str) -> Result<(), SqlError> {
    if reads.is_empty() {
        return Err(SqlError::new(Code::BadDefinition, format!("{kind} \"{name}\" reads no stream"))
            .at(name.place)
            .hint("add FROM <stream>"));
    }
    Ok(())
}
