//! Text to statements: our own switch over the first words, sqlparser for queries, types and expressions.
//!
//! Always: whatever is not understood, or understood and not built, is an error with its place; nothing that was written is
//! dropped. Never panics on any text. Called by the engine, by the catalogue's replay and by `vitalsql check`.

mod define;

use datafusion::sql::sqlparser::ast::{self, SetExpr, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::dialect::columns::{here, next_words, shown};
use super::dialect::tokens::{is_word, word, words_at};
use super::dialect::{Piece, asof, emit, pattern, prepass, refuse, reserved, split_script, windows};
use super::error::{Code, Place, SqlError, did_you_mean, nearest};
use super::spelling;
use super::statement::{DropObject, Emit, Explain, Insert, Kind, Name, Parsed, Restore, Select, Show, StateTtl, Statement, Subscribe};

/// How deep brackets and subqueries may lie in one another.
const RECURSION_LIMIT: usize = 50;

/// Parses a script of statements with semicolons between them; stops at the first error.
pub fn parse_script(script: &str) -> Result<Vec<Parsed>, SqlError> {
    split_script(script)?.iter().map(parse_piece).collect()
}

/// Parses a text that is exactly one statement.
pub fn parse_statement(text: &str) -> Result<Parsed, SqlError> {
    let pieces = split_script(text)?;
    match pieces.as_slice() {
        [piece] => parse_piece(piece),
        [] => Err(SqlError::syntax("there is no statement").hint("write one, such as SHOW STREAMS")),
        [_, second, ..] => Err(SqlError::syntax("one statement is expected, and here begins another").at(second.place)),
    }
}

/// Parses one statement of a script that [`split_script`] has cut.
pub fn parse_piece(piece: &Piece) -> Result<Parsed, SqlError> {
    let statement = statement(&piece.tokens).map_err(|e| placed(e, piece))?;
    Ok(Parsed { statement, text: piece.text.clone(), place: piece.place })
}

/// The error with a place, and the place as long as the token it points to.
fn placed(mut error: SqlError, piece: &Piece) -> SqlError {
    match &mut error.place {
        Some(place) if place.length <= 1 => {
            let token = piece.tokens.iter().filter_map(|t| Place::of(t.span)).find(|p| (p.line, p.column) == (place.line, place.column));
            if let Some(token) = token {
                *place = token;
            }
        }
        Some(_) => {}
        None if error.code == Code::Syntax => error.place = Some(piece.end),
        None => error.place = Some(piece.tokens.first().and_then(|t| Place::of(t.span)).unwrap_or(piece.place)),
    }
    error
}

/// A parser over some tokens.
fn parser(tokens: Vec<TokenWithSpan>) -> Parser<'static> {
    Parser::new(&GenericDialect {}).with_recursion_limit(RECURSION_LIMIT).with_tokens_with_locations(tokens)
}

/// Statements of other dialects, by first word, that are refused by name.
const OTHER_STATEMENTS: &[&str] = &[
    "ALTER",
    "ANALYZE",
    "BEGIN",
    "CALL",
    "CLOSE",
    "COMMENT",
    "COMMIT",
    "COPY",
    "DEALLOCATE",
    "DECLARE",
    "DELETE",
    "EXECUTE",
    "EXPORT",
    "FETCH",
    "FLUSH",
    "GRANT",
    "IMPORT",
    "LOAD",
    "MERGE",
    "OPTIMIZE",
    "PREPARE",
    "REFRESH",
    "REPLACE",
    "RESET",
    "REVOKE",
    "ROLLBACK",
    "SAVEPOINT",
    "SET",
    "START",
    "STOP",
    "TABLE",
    "TRUNCATE",
    "UNLISTEN",
    "UNSET",
    "UNSUBSCRIBE",
    "UPDATE",
    "USE",
    "VACUUM",
];

/// First words of the statements there are.
const STATEMENTS: [&str; 15] = [
    "CREATE",
    "SELECT",
    "WITH",
    "VALUES",
    "INSERT",
    "PAUSE",
    "RESUME",
    "RESTORE",
    "DROP",
    "SHOW",
    "DESCRIBE",
    "DESC",
    "EXPLAIN",
    "WHY",
    "SUBSCRIBE",
];

fn statement(tokens: &[TokenWithSpan]) -> Result<Statement, SqlError> {
    let Some(first) = tokens.first() else { return Err(SqlError::syntax("there is no statement")) };
    let place = Place::of(first.span);
    if matches!(first.token, Token::LParen) {
        return select_alone(tokens);
    }
    let Some(verb) = word(first).map(str::to_ascii_uppercase) else {
        return Err(SqlError::syntax(format!("a statement cannot begin with {}", shown(first)))
            .at(place)
            .hint("begin with CREATE, SELECT, SHOW .."));
    };
    match verb.as_str() {
        "SELECT" | "WITH" | "VALUES" => select_alone(tokens),
        "CREATE" => define::create(tokens),
        "INSERT" => insert(tokens),
        "PAUSE" | "RESUME" => {
            let mut p = rest(tokens, 1);
            let kind = kind(&mut p, &[Kind::Query, Kind::View, Kind::Alert])?;
            let name = last_name(&mut p, kind)?;
            Ok(if verb == "PAUSE" { Statement::Pause(kind, name) } else { Statement::Resume(kind, name) })
        }
        "RESTORE" => restore(tokens),
        "DROP" => drop_object(tokens),
        "SHOW" => show(tokens),
        "DESCRIBE" | "DESC" => {
            let mut p = rest(tokens, 1);
            // The kind may be said; the name alone is enough, for a name means one thing.
            if let Token::Word(_) = p.peek_nth_token(1).token
                && kind(&mut p, &[Kind::Stream, Kind::Table, Kind::Query, Kind::View, Kind::Alert, Kind::Savepoint])? == Kind::Savepoint
            {
                return Ok(Statement::DescribeSavepoint(last_name(&mut p, Kind::Savepoint)?));
            }
            let name = name(&mut p, "stream")?;
            end(&p)?;
            Ok(Statement::Describe(name))
        }
        "EXPLAIN" => explain(tokens),
        "WHY" => {
            let mut p = rest(tokens, 1);
            let kind = kind(&mut p, &[Kind::Query, Kind::View])?;
            Ok(Statement::WhyQuery(last_name(&mut p, kind)?))
        }
        "SUBSCRIBE" => subscribe(tokens),
        "FROM" => Err(SqlError::not_supported("FROM before SELECT").at(place).hint("write SELECT .. FROM ..")),
        other if OTHER_STATEMENTS.contains(&other) => Err(SqlError::not_supported(other).at(place)),
        other => {
            let hint = nearest(other, STATEMENTS)
                .map_or_else(|| "begin with CREATE, SELECT, INSERT, DROP, SHOW ..".to_owned(), |found| format!("did you mean {found}?"));
            Err(SqlError::syntax(format!("{} is not a statement", shown(first))).at(place).hint(hint))
        }
    }
}

/// A parser that stands behind the first `skip` tokens.
fn rest(tokens: &[TokenWithSpan], skip: usize) -> Parser<'static> {
    parser(tokens.get(skip..).unwrap_or_default().to_vec())
}

fn select_alone(tokens: &[TokenWithSpan]) -> Result<Statement, SqlError> {
    let select = select(tokens)?;
    if let Emit::WindowClose { .. } | Emit::Update { .. } = select.emit {
        let clause = if let Emit::Update { .. } = select.emit { "EMIT ON UPDATE" } else { "EMIT ON WINDOW CLOSE" };
        let error = SqlError::not_supported(&format!("{clause} in a SELECT typed by hand")).at(select.emit_place);
        return Err(error.hint("write EMIT CHANGES to go on, or nothing to read what is stored"));
    }
    if select.emit == Emit::Changes {
        refuse::on_streams(&select.query)?;
    }
    Ok(Statement::Select(Box::new(select)))
}

/// A whole query: its EMIT clause cut off, its window calls in their normal form, what is not built refused.
fn select(tokens: &[TokenWithSpan]) -> Result<Select, SqlError> {
    let mut tokens = tokens.to_vec();
    reserved::quote(&mut tokens);
    let (emit, emit_place) = emit::cut(&mut tokens)?;
    refuse::in_tokens(&tokens)?;
    let tokens = prepass::rewrite(&asof::rewrite(&pattern::rewrite(&tokens)?)?)?;
    if tokens.is_empty() {
        return Err(SqlError::syntax("a query is expected").at(emit_place).hint("write SELECT .. FROM .."));
    }
    let mut p = parser(tokens);
    let mut query = p.parse_query()?;
    end(&p)?;
    spelling::regroup(&mut query);
    asof::normalize(&mut query)?;
    windows::normalize(&mut query)?;
    spelling::normalize(&mut query)?;
    refuse::in_query(&query)?;
    let reads = relations(&query);
    Ok(Select { query, emit, emit_place, state_ttl: StateTtl::Unstated, reads })
}

/// The relations a query reads, once each, without the names of its own WITH.
pub(super) fn relations(query: &ast::Query) -> Vec<Name> {
    #[derive(Default)]
    struct Relations {
        found: Vec<Name>,
        /// The names of WITH that are in sight, one list a query.
        scopes: Vec<Vec<String>>,
    }
    impl Visitor for Relations {
        type Break = ();
        fn pre_visit_query(&mut self, query: &ast::Query) -> std::ops::ControlFlow<()> {
            self.scopes.push(Vec::new());
            if let Some(with) = &query.with {
                for cte in &with.cte_tables {
                    let name = Name::of(&cte.alias.name).text;
                    let scope = |s: &mut Self, name: String| s.scopes.last_mut().expect("it was pushed just now").push(name);
                    if with.recursive {
                        scope(self, name);
                        continue;
                    }
                    // Inside its own body a name still means what it meant outside. The walk comes here once more
                    // afterwards, with all names in sight, and finds nothing new.
                    let _ = cte.query.visit(self);
                    scope(self, name);
                }
            }
            std::ops::ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &ast::Query) -> std::ops::ControlFlow<()> {
            self.scopes.pop();
            std::ops::ControlFlow::Continue(())
        }
        fn pre_visit_table_factor(&mut self, factor: &ast::TableFactor) -> std::ops::ControlFlow<()> {
            if let ast::TableFactor::Table { name, args: None, .. } = factor
                && let [part] = name.0.as_slice()
                && let Some(ident) = part.as_ident()
            {
                let name = Name::of(ident);
                let own = self.scopes.iter().flatten().any(|n| *n == name.text);
                if !own && !self.found.contains(&name) {
                    self.found.push(name);
                }
            }
            std::ops::ControlFlow::Continue(())
        }
    }
    let mut visitor = Relations::default();
    let _ = query.visit(&mut visitor);
    visitor.found
}

fn insert(tokens: &[TokenWithSpan]) -> Result<Statement, SqlError> {
    let mut p = rest(tokens, 1);
    if !p.parse_keyword(Keyword::INTO) {
        let found = p.peek_token();
        return Err(match word(&found).map(str::to_ascii_uppercase).as_deref() {
            Some(clause @ ("OVERWRITE" | "OR" | "IGNORE" | "REPLACE")) => {
                SqlError::not_supported(&format!("INSERT {clause}")).at(Place::of(found.span))
            }
            _ => SqlError::syntax(format!("expected INTO, found {}", shown(&found))).at(Place::of(found.span)),
        });
    }
    let into = name(&mut p, "stream")?;
    let columns = column_list(&mut p)?;
    let body = tokens.get(1 + p.index()..).unwrap_or_default();
    if body.is_empty() {
        return Err(SqlError::syntax("INSERT has no rows").hint("write VALUES (..)"));
    }
    if !is_word(&body[0], "VALUES") {
        let is_query = ["SELECT", "WITH"].iter().any(|w| is_word(&body[0], w)) || matches!(body[0].token, Token::LParen);
        return Err(if is_query {
            SqlError::not_supported("INSERT INTO .. SELECT by itself")
                .at(Place::of(body[0].span))
                .hint(format!("give the query a name: CREATE QUERY q AS INSERT INTO {into} SELECT .."))
        } else {
            SqlError::syntax(format!("expected VALUES, found {}", shown(&body[0]))).at(Place::of(body[0].span)).hint("write VALUES (..)")
        });
    }
    let mut p = parser(body.to_vec());
    let mut values = p.parse_query()?;
    end(&p)?;
    spelling::normalize(&mut values)?;
    refuse::in_query(&values)?;
    refuse::on_streams(&values)?;
    let SetExpr::Values(rows) = &*values.body else {
        return Err(SqlError::syntax("INSERT takes VALUES and nothing else").at(Place::of(body[0].span)).hint("write VALUES (..), (..)"));
    };
    let width = rows.rows.first().map_or(0, |row| row.content.len());
    let uneven = rows.rows.iter().find(|row| row.content.len() != width);
    if let Some(row) = uneven {
        let message = format!("a row has {}, the first has {width}", count(row.content.len(), "value"));
        return Err(SqlError::new(Code::BadDefinition, message).at(row.content.first().and_then(super::dialect::columns::place_of)));
    }
    if !columns.is_empty() && columns.len() != width {
        return Err(SqlError::new(
            Code::BadDefinition,
            format!("a row has {} for {}", count(width, "value"), count(columns.len(), "column")),
        )
        .at(columns[0].place));
    }
    Ok(Statement::Insert(Insert { into, columns, values }))
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// `( a, b )` where it stands there, each name once.
fn column_list(p: &mut Parser<'_>) -> Result<Vec<Name>, SqlError> {
    let is_list =
        matches!(p.peek_token().token, Token::LParen) && !["SELECT", "WITH", "VALUES"].iter().any(|w| is_word(&p.peek_nth_token(1), w));
    if !is_list {
        return Ok(Vec::new());
    }
    p.expect_token(&Token::LParen)?;
    let columns: Vec<Name> = p.parse_comma_separated(Parser::parse_identifier)?.iter().map(Name::of).collect();
    p.expect_token(&Token::RParen)?;
    if let Some((_, twice)) = columns.iter().enumerate().find(|(i, c)| columns[..*i].contains(c)) {
        return Err(SqlError::new(Code::BadDefinition, format!("column \"{twice}\" is listed twice")).at(twice.place));
    }
    Ok(columns)
}

fn subscribe(tokens: &[TokenWithSpan]) -> Result<Statement, SqlError> {
    const EXAMPLE: &str = "write SUBSCRIBE TO view [WHERE condition] [AS OF 'epoch']";
    let mut p = rest(tokens, 1);
    if !p.parse_keyword(Keyword::TO) {
        let token = p.peek_token();
        return Err(SqlError::syntax(format!("expected TO, found {}", shown(&token))).at(Place::of(token.span)).hint(EXAMPLE));
    }
    let view = name(&mut p, "view")?;
    let mut filter = if p.parse_keyword(Keyword::WHERE) { Some(Box::new(p.parse_expr()?)) } else { None };
    spelling::normalize(&mut filter)?;
    let mut as_of = None;
    if p.parse_keywords(&[Keyword::AS, Keyword::OF]) {
        let token = p.next_token();
        let Token::SingleQuotedString(epoch) = &token.token else {
            return Err(SqlError::syntax(format!("expected an epoch, found {}", shown(&token)))
                .at(Place::of(token.span))
                .hint("write it as it came in the column epoch: AS OF '..'"));
        };
        as_of = Some((epoch.clone(), Place::of(token.span)));
    }
    end(&p)?;
    Ok(Statement::Subscribe(Subscribe { view, filter, as_of }))
}

/// `RESTORE QUERY q FROM SAVEPOINT s`.
fn restore(tokens: &[TokenWithSpan]) -> Result<Statement, SqlError> {
    let mut p = rest(tokens, 1);
    let token = p.peek_token();
    if next_words(&p, &["MATERIALIZED"]) || next_words(&p, &["VIEW"]) {
        return Err(SqlError::not_supported("RESTORE VIEW")
            .at(Place::of(token.span))
            .hint("a view's rows would stay those of later: let a query begin from the savepoint, or CREATE OR REPLACE the view"));
    }
    let kind = kind(&mut p, &[Kind::Query, Kind::Alert])?;
    let name = name(&mut p, kind.word())?;
    if !next_words(&p, &["FROM", "SAVEPOINT"]) {
        let token = p.peek_token();
        let hint = format!("write RESTORE {} {name} FROM SAVEPOINT s", kind.word().to_ascii_uppercase());
        return Err(SqlError::syntax(format!("expected FROM SAVEPOINT, found {}", shown(&token))).at(Place::of(token.span)).hint(hint));
    }
    (0..2).for_each(|_| drop(p.next_token()));
    let savepoint = last_name(&mut p, Kind::Savepoint)?;
    Ok(Statement::Restore(Restore { kind, name, savepoint }))
}

fn drop_object(tokens: &[TokenWithSpan]) -> Result<Statement, SqlError> {
    let mut p = rest(tokens, 1);
    let kind = kind(&mut p, &[Kind::Stream, Kind::Table, Kind::Query, Kind::View, Kind::Alert, Kind::Function, Kind::Savepoint])?;
    let if_exists = p.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    let name = name(&mut p, kind.word())?;
    let token = p.peek_token();
    if ["CASCADE", "RESTRICT"].iter().any(|w| is_word(&token, w)) {
        return Err(SqlError::not_supported(&format!("DROP .. {}", token.token)).at(Place::of(token.span)).hint("drop what uses it first"));
    }
    end(&p)?;
    Ok(Statement::Drop(DropObject { kind, if_exists, name }))
}

fn show(tokens: &[TokenWithSpan]) -> Result<Statement, SqlError> {
    const LISTS: [(&str, Kind); 7] = [
        ("STREAMS", Kind::Stream),
        ("TABLES", Kind::Table),
        ("QUERIES", Kind::Query),
        ("VIEWS", Kind::PlainView),
        ("ALERTS", Kind::Alert),
        ("FUNCTIONS", Kind::Function),
        ("SAVEPOINTS", Kind::Savepoint),
    ];
    let mut p = rest(tokens, 1);
    let what = p.next_token();
    let place = Place::of(what.span);
    let written = word(&what).map(str::to_ascii_uppercase).unwrap_or_default();
    if written == "CREATE" {
        let mut said = None;
        if let Token::Word(_) = p.peek_nth_token(1).token {
            let kinds = [Kind::Stream, Kind::Table, Kind::Query, Kind::View, Kind::Alert, Kind::Function, Kind::Savepoint];
            said = Some(kind(&mut p, &kinds)?);
        }
        let name = name(&mut p, said.map_or("stream", Kind::word))?;
        end(&p)?;
        return Ok(Statement::Show(Show::Create { kind: said, name }));
    }
    if written == "MATERIALIZED" && next_words(&p, &["VIEWS"]) {
        p.next_token();
        end(&p)?;
        return Ok(Statement::Show(Show::All(Kind::View)));
    }
    if let Some((_, kind)) = LISTS.iter().find(|(name, _)| *name == written) {
        let kind = *kind;
        let token = p.peek_token();
        if ["LIKE", "FROM", "IN", "WHERE"].iter().any(|w| is_word(&token, w)) {
            return Err(SqlError::not_supported(&format!("SHOW {written} {}", token.token)).at(Place::of(token.span)));
        }
        end(&p)?;
        return Ok(Statement::Show(Show::All(kind)));
    }
    if ["TOPICS", "COLUMNS", "DATABASES", "SCHEMAS", "VARIABLES", "ALL", "SOURCES", "SINKS", "JOBS"].contains(&written.as_str()) {
        let hint = if written == "COLUMNS" {
            "write DESCRIBE s"
        } else {
            "SHOW takes STREAMS, TABLES, QUERIES, VIEWS, ALERTS, FUNCTIONS, SAVEPOINTS and CREATE"
        };
        return Err(SqlError::not_supported(&format!("SHOW {written}")).at(place).hint(hint));
    }
    let hint = did_you_mean(&written, LISTS.iter().map(|(name, _)| *name).chain(["CREATE"])).map(|h| h.replace('"', ""));
    let message =
        if matches!(what.token, Token::EOF) { "SHOW does not say what".to_owned() } else { format!("cannot show {}", shown(&what)) };
    Err(SqlError::syntax(message)
        .at(place)
        .hint(hint.unwrap_or_else(|| "write STREAMS, TABLES, QUERIES, VIEWS, ALERTS, FUNCTIONS, SAVEPOINTS or CREATE ..".to_owned())))
}

fn explain(tokens: &[TokenWithSpan]) -> Result<Statement, SqlError> {
    let analyze = words_at(tokens, 1, &["ANALYZE"]);
    let at = if analyze { 2 } else { 1 };
    let place = tokens.get(at).and_then(|t| Place::of(t.span));
    for clause in ["VERBOSE", "FORMAT", "LOGICAL", "ESTIMATED_COST", "PLAN"] {
        if words_at(tokens, at, &[clause]) {
            return Err(SqlError::not_supported(&format!("EXPLAIN {clause}")).at(place).hint("write EXPLAIN SELECT .. or EXPLAIN QUERY q"));
        }
    }
    if words_at(tokens, at, &["QUERY"]) {
        let mut p = rest(tokens, at + 1);
        let name = last_name(&mut p, Kind::Query)?;
        return Ok(Statement::Explain(Explain::Query { analyze, name }));
    }
    if !(["SELECT", "WITH", "VALUES"].iter().any(|w| words_at(tokens, at, &[w]))
        || tokens.get(at).is_some_and(|t| matches!(t.token, Token::LParen)))
    {
        return Err(SqlError::syntax("EXPLAIN takes a query").at(place).hint("write EXPLAIN SELECT .. or EXPLAIN QUERY q"));
    }
    let select = select(&tokens[at..])?;
    if analyze && select.emit == Emit::Changes {
        return Err(SqlError::not_supported("EXPLAIN ANALYZE of a SELECT that goes on for ever")
            .at(select.emit_place)
            .hint("leave EMIT CHANGES out to run it over what is stored, or EXPLAIN ANALYZE QUERY q of one that runs"));
    }
    if select.emit != Emit::Unstated {
        refuse::on_streams(&select.query)?;
    }
    Ok(Statement::Explain(Explain::Select { analyze, select: Box::new(select) }))
}

/// A word for one of some kinds.
fn kind(p: &mut Parser<'_>, allowed: &[Kind]) -> Result<Kind, SqlError> {
    if allowed.contains(&Kind::View) && next_words(p, &["MATERIALIZED", "VIEW"]) {
        p.next_token();
    }
    let token = p.next_token();
    let written = word(&token).map(str::to_ascii_lowercase).unwrap_or_default();
    let known = if written == "source" { "stream" } else { written.as_str() };
    if let Some(kind) = allowed.iter().find(|k| k.word() == known) {
        return Ok(*kind);
    }
    let words: Vec<String> = allowed.iter().map(|k| k.word().to_ascii_uppercase()).collect();
    let hint = nearest(&written, allowed.iter().map(|k| k.word())).map(|found| format!("did you mean {}?", found.to_ascii_uppercase()));
    Err(SqlError::syntax(format!("expected {}, found {}", words.join(" or "), shown(&token))).at(Place::of(token.span)).hint_opt(hint))
}

/// One name, of one part.
fn name(p: &mut Parser<'_>, kind: &str) -> Result<Name, SqlError> {
    let token = p.peek_token();
    if !matches!(token.token, Token::Word(_)) {
        let error = SqlError::syntax(format!("expected the name of a {kind}, found {}", shown(&token))).at(Place::of(token.span));
        return Err(if matches!(token.token, Token::SingleQuotedString(_)) {
            error.hint("write it without quotes, or in double quotes")
        } else {
            error
        });
    }
    let name = Name::of(&p.parse_identifier()?);
    if name.text.is_empty() {
        return Err(SqlError::syntax(format!("the name of a {kind} is empty")).at(name.place));
    }
    if matches!(p.peek_token().token, Token::Period) {
        return Err(SqlError::syntax(format!("the name of a {kind} has one part"))
            .at(here(p))
            .hint("put a name with a dot in it in double quotes"));
    }
    Ok(name)
}

fn last_name(p: &mut Parser<'_>, kind: Kind) -> Result<Name, SqlError> {
    let name = name(p, kind.word())?;
    end(p)?;
    Ok(name)
}

/// Nothing may follow.
fn end(p: &Parser<'_>) -> Result<(), SqlError> {
    let token = p.peek_token();
    if matches!(token.token, Token::EOF) {
        return Ok(());
    }
    const CLAUSES: [&str; 14] =
        ["FROM", "WHERE", "GROUP", "ORDER", "HAVING", "QUALIFY", "LIMIT", "UNION", "JOIN", "EMIT", "WINDOW", "ON", "AND", "OFFSET"];
    let found = shown(&token);
    let meant = |written: &str| nearest(&written.to_ascii_uppercase(), CLAUSES).map(|w| format!("did you mean {w}?"));
    let error = SqlError::syntax(format!("expected the end of the statement, found {found}"));
    if let Some(hint) = meant(&found) {
        return Err(error.at(Place::of(token.span)).hint(hint));
    }
    // In `FROM s WHRE x > 1` the slip was taken for an alias, and the parser is stuck one word later.
    let before = p.get_current_token();
    match word(before).and_then(meant) {
        Some(hint) => Err(error.at(Place::of(before.span)).hint(hint)),
        None => Err(error.at(Place::of(token.span))),
    }
}

#[cfg(test)]
mod tests;
