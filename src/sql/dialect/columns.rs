//! What stands between the brackets of CREATE STREAM and CREATE TABLE, and behind WITH.

use datafusion::sql::sqlparser::ast::{Expr, Spanned};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::{is_word, words_at};
use crate::sql::error::{Code, Place, SqlError, did_you_mean};
use crate::sql::options::Given;
use crate::sql::spelling;
use crate::sql::statement::{Column, ColumnSource, Metadata, Name, Watermark};
use crate::sql::types::arrow_type;

/// The most columns a stream may have.
const MAX_COLUMNS: usize = 2_000;

/// Words that may stand where a type stands, for suggestions.
const TYPES: [&str; 18] = [
    "VARCHAR",
    "DOUBLE",
    "REAL",
    "FLOAT",
    "INT",
    "INTEGER",
    "BIGINT",
    "SMALLINT",
    "TINYINT",
    "BOOLEAN",
    "DECIMAL",
    "DATE",
    "TIME",
    "TIMESTAMP",
    "TEXT",
    "STRUCT",
    "ARRAY",
    "BYTES",
];

/// The elements of a definition, not yet checked against each other.
#[derive(Debug, Default)]
pub struct Elements {
    pub columns: Vec<Column>,
    pub watermark: Option<Watermark>,
    pub primary_key: Vec<Name>,
    pub primary_key_place: Option<Place>,
}

/// Reads `( element, .. )`.
pub fn elements(p: &mut Parser<'_>) -> Result<Elements, SqlError> {
    let mut out = Elements::default();
    p.expect_token(&Token::LParen)?;
    loop {
        element(p, &mut out)?;
        if out.columns.len() > MAX_COLUMNS {
            return Err(SqlError::new(Code::Limit, format!("more than {MAX_COLUMNS} columns")).at(here(p)));
        }
        if p.consume_token(&Token::Comma) {
            continue;
        }
        let found = p.peek_token();
        if p.consume_token(&Token::RParen) {
            return Ok(out);
        }
        let expected = ["NOT NULL", "METADATA", "PRIMARY KEY", "AS"];
        let hint = did_you_mean(&found.token.to_string().to_ascii_uppercase(), expected);
        return Err(SqlError::syntax(format!("expected a comma or ) in the column list, found {}", shown(&found)))
            .at(Place::of(found.span))
            .hint_opt(hint));
    }
}

fn element(p: &mut Parser<'_>, out: &mut Elements) -> Result<(), SqlError> {
    let first = p.peek_token();
    let place = Place::of(first.span);
    let next = p.peek_nth_token(1);
    if is_word(&first, "WATERMARK") && is_word(&next, "FOR") {
        if out.watermark.is_some() {
            return Err(SqlError::new(Code::BadDefinition, "there are two WATERMARK clauses").at(place).hint("keep one of them"));
        }
        out.watermark = Some(watermark(p)?);
        return Ok(());
    }
    if is_word(&first, "PRIMARY") && is_word(&next, "KEY") {
        p.next_token();
        p.next_token();
        p.expect_token(&Token::LParen)?;
        let keys = p.parse_comma_separated(Parser::parse_identifier)?;
        p.expect_token(&Token::RParen)?;
        return primary_key(p, out, keys.iter().map(Name::of).collect(), place);
    }
    for word in ["CONSTRAINT", "UNIQUE", "CHECK", "FOREIGN", "INDEX", "PERIOD", "LIKE"] {
        if is_word(&first, word)
            && (word == "CONSTRAINT" || matches!(next.token, Token::LParen) || is_word(&next, "KEY") || is_word(&next, "FOR"))
        {
            return Err(SqlError::not_supported(&format!("{word} in a column list")).at(place).hint("leave it out"));
        }
    }
    column(p, out)
}

fn primary_key(p: &mut Parser<'_>, out: &mut Elements, keys: Vec<Name>, place: Option<Place>) -> Result<(), SqlError> {
    if !out.primary_key.is_empty() {
        return Err(SqlError::new(Code::BadDefinition, "there are two PRIMARY KEY clauses").at(place).hint("keep one of them"));
    }
    if !(p.parse_keyword(Keyword::NOT) && p.parse_keyword(Keyword::ENFORCED)) {
        return Err(SqlError::not_supported("an enforced PRIMARY KEY")
            .at(place)
            .hint("write PRIMARY KEY (..) NOT ENFORCED: a later row takes the place of an earlier one"));
    }
    out.primary_key = keys;
    out.primary_key_place = place;
    Ok(())
}

fn watermark(p: &mut Parser<'_>) -> Result<Watermark, SqlError> {
    p.next_token();
    p.next_token();
    let column = Name::of(&p.parse_identifier()?);
    if !p.parse_keyword(Keyword::AS) {
        let found = p.peek_token();
        return Err(SqlError::syntax(format!("expected AS in the WATERMARK clause, found {}", shown(&found)))
            .at(Place::of(found.span))
            .hint(format!("write WATERMARK FOR {column} AS {column} - INTERVAL '5' SECOND")));
    }
    let place = here(p);
    let mut expr = p.parse_expr()?;
    spelling::normalize(&mut expr)?;
    Ok(Watermark { column, expr, place })
}

fn column(p: &mut Parser<'_>, out: &mut Elements) -> Result<(), SqlError> {
    let token = p.peek_token();
    if !matches!(token.token, Token::Word(_)) {
        return Err(SqlError::syntax(format!("expected a column, found {}", shown(&token))).at(Place::of(token.span)));
    }
    let name = Name::of(&p.parse_identifier()?);
    if p.parse_keyword(Keyword::AS) {
        let mut expr = p.parse_expr()?;
        spelling::normalize(&mut expr)?;
        out.columns.push(Column { name, data_type: None, nullable: true, source: ColumnSource::Computed(Box::new(expr)) });
        return Ok(());
    }
    let at = p.peek_token();
    if matches!(at.token, Token::Comma | Token::RParen | Token::EOF) {
        return Err(SqlError::new(Code::BadType, format!("column \"{name}\" has no type"))
            .at(name.place)
            .hint(format!("write {name} VARCHAR, or DOUBLE, TIMESTAMP(3) ..")));
    }
    let known = at.token.to_string().to_ascii_uppercase();
    let data_type = p.parse_data_type().map_err(SqlError::from).and_then(|t| arrow_type(&t));
    let data_type = data_type.map_err(|e| e.at(Place::of(at.span)).hint_opt(did_you_mean(&known, TYPES).map(|h| h.replace('"', ""))))?;
    let mut column = Column { name, data_type: Some(data_type), nullable: true, source: ColumnSource::Value };
    loop {
        let token = p.peek_token();
        let place = Place::of(token.span);
        if p.parse_keywords(&[Keyword::NOT, Keyword::NULL]) {
            column.nullable = false;
        } else if is_word(&token, "NULL") {
            p.next_token();
        } else if is_word(&token, "METADATA") {
            p.next_token();
            column.source = ColumnSource::Metadata(metadata(p, &column.name)?);
        } else if p.parse_keywords(&[Keyword::PRIMARY, Keyword::KEY]) {
            let key = column.name.clone();
            primary_key(p, out, vec![key], place)?;
        } else if let Some(clause) =
            ["DEFAULT", "UNIQUE", "CHECK", "REFERENCES", "GENERATED", "COMMENT", "COLLATE", "CONSTRAINT", "AUTO_INCREMENT"]
                .iter()
                .find(|c| is_word(&token, c))
        {
            return Err(SqlError::not_supported(&format!("{clause} of a column")).at(place).hint("leave it out"));
        } else {
            break;
        }
    }
    out.columns.push(column);
    Ok(())
}

/// `[FROM 'key']` behind METADATA; without it the column's name is the key.
fn metadata(p: &mut Parser<'_>, column: &Name) -> Result<Metadata, SqlError> {
    let mut place = column.place;
    let written = if p.parse_keyword(Keyword::FROM) {
        place = here(p);
        p.parse_literal_string().map_err(|e| SqlError::from(e).hint("write METADATA FROM 'partition'"))?
    } else {
        column.text.clone()
    };
    let token = p.peek_token();
    if is_word(&token, "VIRTUAL") {
        p.next_token();
    }
    Metadata::ALL.into_iter().find(|m| m.word() == written).ok_or_else(|| {
        let words = Metadata::ALL.map(Metadata::word);
        let error = match written.as_str() {
            "headers" | "timestamp-type" | "topic" | "leader-epoch" => SqlError::not_supported(&format!("METADATA FROM '{written}'")),
            _ => SqlError::new(Code::BadDefinition, format!("a record has no metadata '{written}'")),
        };
        error.at(place).hint(did_you_mean(&written, words).unwrap_or_else(|| format!("write one of {}", words.join(", "))))
    })
}

/// Reads `WITH ( 'name' = 'value', .. )` where it stands there.
pub fn with_options(p: &mut Parser<'_>) -> Result<Vec<Given>, SqlError> {
    let mut given = Vec::new();
    if !p.parse_keyword(Keyword::WITH) {
        return Ok(given);
    }
    p.expect_token(&Token::LParen)?;
    if p.consume_token(&Token::RParen) {
        return Ok(given);
    }
    loop {
        given.push(option(p)?);
        if p.consume_token(&Token::Comma) {
            continue;
        }
        p.expect_token(&Token::RParen)?;
        return Ok(given);
    }
}

fn option(p: &mut Parser<'_>) -> Result<Given, SqlError> {
    let first = p.next_token();
    let name_place = Place::of(first.span);
    let mut name = match first.token {
        Token::SingleQuotedString(text) => text,
        Token::Word(word) => word.value,
        _ => {
            return Err(SqlError::syntax(format!("expected an option, found {}", shown(&first)))
                .at(name_place)
                .hint("write 'topic' = 'vitals'"));
        }
    };
    // Unquoted names may have dots and dashes in them.
    while matches!(p.peek_token().token, Token::Period | Token::Minus) {
        name.push_str(&p.next_token().token.to_string());
        let part = p.next_token();
        let Token::Word(word) = part.token else {
            return Err(SqlError::syntax(format!("expected the rest of the option's name, found {}", shown(&part)))
                .at(Place::of(part.span))
                .hint("put the name in quotes"));
        };
        name.push_str(&word.value);
    }
    if !p.consume_token(&Token::Eq) {
        let found = p.peek_token();
        return Err(SqlError::syntax(format!("expected = behind option '{name}', found {}", shown(&found)))
            .at(Place::of(found.span))
            .hint(format!("write '{name}' = 'value'")));
    }
    let token = p.next_token();
    let value_place = Place::of(token.span);
    let value = match &token.token {
        Token::SingleQuotedString(text) => text.clone(),
        Token::Number(text, _) => text.clone(),
        Token::Word(word) => word.value.clone(),
        _ => {
            return Err(SqlError::syntax(format!("expected the value of option '{name}', found {}", shown(&token)))
                .at(value_place)
                .hint("put the value in quotes"));
        }
    };
    Ok(Given { name, value, name_place, value_place })
}

/// Where the parser stands.
pub fn here(p: &Parser<'_>) -> Option<Place> {
    Place::of(p.peek_token_ref().span)
}

/// A token as a message shows it.
pub fn shown(token: &TokenWithSpan) -> String {
    match &token.token {
        Token::EOF => "the end".to_owned(),
        other => other.to_string(),
    }
}

/// The columns an expression names, for checks before planning.
pub fn columns_of(expr: &Expr) -> Vec<Name> {
    use std::ops::ControlFlow;

    use datafusion::sql::sqlparser::ast::visit_expressions;
    let mut names = Vec::new();
    let _: ControlFlow<()> = visit_expressions(expr, |e| {
        match e {
            Expr::Identifier(ident) => names.push(Name::of(ident)),
            Expr::CompoundIdentifier(parts) if parts.len() == 1 => names.extend(parts.iter().map(Name::of)),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    names
}

/// Whether the tokens at the parser's place are these words.
pub fn next_words(p: &Parser<'_>, words: &[&str]) -> bool {
    let ahead: Vec<TokenWithSpan> = (0..words.len()).map(|i| p.peek_nth_token(i)).collect();
    words_at(&ahead, 0, words)
}

/// The place of an expression.
pub fn place_of(expr: &Expr) -> Option<Place> {
    Place::of(expr.span())
}
