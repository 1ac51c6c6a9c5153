"""Every GraphQL query that the product sends: valid against GitHub's schema, and what it costs."""

from __future__ import annotations

import gzip
import re
from datetime import timedelta

import graphql
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.models import Batch, Entity, Request, Response
from astrid.simulators.github import GitHub, User
from astrid.simulators.github_graphql import SCHEMA, SDL, Query, price, read_query
from astrid.sources.github import SOURCE, crawl
from astrid.sources.github_commits import DAYS, commits_form
from astrid.sources.github_counts import COUNTS, TOTALS
from astrid.sources.github_graphql import Form
from astrid.sources.github_identity import IDENTITY, resolve_query
from astrid.tokens import VIEWER
from tests.by_hand import run, sound
from tests.github_by_hand import DAY, SHARED, answer_soundly, ask, entity
from tests.synthetic_world import GAP, NIGHT, make_world

NAMES = ["a/b", 'q"uo/te\\s', "no-slash", "ümlaut/😀"]
FORMS = [COUNTS, TOTALS, IDENTITY, *(commits_form(DAY - timedelta(days=n - 1), DAY) for n in (1, DAYS, 28))]
QUERIES = {f"{form.name}{len(form.fields)}": form.query for form in FORMS} | {
    "Viewer": VIEWER.json["query"],
    "Resolve": resolve_query([Entity(n, "p", "", (name,)) for n, name in enumerate(NAMES)]),
    "Resolve100": resolve_query([entity(n) for n in range(100)]),
    "ResolveNobody": resolve_query([]),
}


@pytest.fixture(scope="module")
def schema() -> graphql.GraphQLSchema:
    """GitHub's public schema, cut down to the types and fields that the simulator has; the whole takes seconds."""
    file = SHARED / "schemas" / "github.graphql.gz"
    if not file.is_file():
        pytest.skip("../shared/schemas/github.graphql.gz, GitHub's public schema, is not there")
    return cut_schema(gzip.decompress(file.read_bytes()).decode(), SDL)


def cut_schema(whole: str, part: str) -> graphql.GraphQLSchema:
    """Take from a schema's text the types and fields that another one has, as they are stated there."""
    wanted = {d.name.value: d for d in graphql.parse(part).definitions if isinstance(d, graphql.TypeDefinitionNode)}
    blocks: list[str] = []
    referred: set[str] = set()
    for name, definition in wanted.items():
        found = re.search(rf"^\w+ {name}(?: [^\n]*\{{$.*?^\}}|$)", whole, re.MULTILINE | re.DOTALL)
        assert found, f"GitHub has no type {name}"
        (stated,) = graphql.parse(found[0]).definitions
        if not isinstance(stated, graphql.ObjectTypeDefinitionNode | graphql.InterfaceTypeDefinitionNode):
            blocks.append(graphql.print_ast(stated))
            continue
        names = {f.name.value for f in getattr(definition, "fields", None) or ()}
        fields = [f for f in stated.fields or () if f.name.value in names]
        ours = {i.name.value for i in getattr(definition, "interfaces", None) or ()}
        above = [i.name.value for i in stated.interfaces or () if i.name.value in ours]
        implements = f" implements {' & '.join(above)}" if above else ""
        lines = "\n".join(map(graphql.print_ast, fields))
        blocks.append(f"{found[0].split()[0]} {name}{implements} {{ {lines} }}")
        for field in fields:
            referred |= {named(field.type), *(named(a.type) for a in field.arguments or ())}
    # What is not looked into, such as the orders of lists that are not listed, only has to exist.
    built_in = {"Boolean", "Float", "ID", "Int", "String"}
    blocks += [f"scalar {name}" for name in sorted(referred - wanted.keys() - built_in)]
    return graphql.build_schema("\n".join(blocks), assume_valid_sdl=True)


def named(node: graphql.TypeNode) -> str:
    while not isinstance(node, graphql.NamedTypeNode):
        assert isinstance(node, graphql.ListTypeNode | graphql.NonNullTypeNode)
        node = node.type
    return node.name.value


def differences(ours: graphql.GraphQLSchema, theirs: graphql.GraphQLSchema) -> list[str]:
    """Return where a part of a schema states something else than the whole, or lacks what the whole demands."""
    found = []
    for kind in ours.type_map.values():
        if kind.name.startswith("__") or graphql.is_specified_scalar_type(kind):
            continue
        whole = theirs.type_map[kind.name]
        if type(kind) is not type(whole):
            found.append(kind.name)
        elif isinstance(kind, graphql.GraphQLEnumType) and isinstance(whole, graphql.GraphQLEnumType):
            found += [f"{kind.name} {name}" for name in kind.values.keys() ^ whole.values.keys()]
        elif isinstance(kind, graphql.GraphQLObjectType | graphql.GraphQLInterfaceType):
            assert isinstance(whole, graphql.GraphQLObjectType | graphql.GraphQLInterfaceType)
            above = {i.name for i in kind.interfaces} - {i.name for i in whole.interfaces}
            found += [f"{kind.name} implements {name}" for name in above]
            found += [f"{kind.name}.{name}" for name in kind.fields.keys() - whole.fields.keys()]
            for name in kind.fields.keys() & whole.fields.keys():
                field, stated = kind.fields[name], whole.fields[name]
                if str(field.type) != str(stated.type):
                    found.append(f"{kind.name}.{name}: {stated.type}")
                for key in field.args.keys() | {k for k, a in stated.args.items() if graphql.is_required_argument(a)}:
                    if (
                        key not in field.args
                        or key not in stated.args
                        or shape(field.args[key]) != shape(stated.args[key])
                    ):
                        found.append(f"{kind.name}.{name}({key})")
    return found


def shape(argument: graphql.GraphQLArgument) -> tuple[str, str]:
    default = argument.ast_node.default_value if argument.ast_node else None
    return str(argument.type), graphql.print_ast(default) if default else ""


@pytest.mark.parametrize("name", QUERIES)
def test_valid_against_githubs_schema(schema: graphql.GraphQLSchema, name: str) -> None:
    assert graphql.validate(schema, graphql.parse(QUERIES[name])) == []


@pytest.mark.parametrize("name", QUERIES)
def test_valid_against_the_simulators_part_of_it(name: str) -> None:
    assert graphql.validate(SCHEMA, graphql.parse(QUERIES[name])) == []


def test_a_field_that_is_not_there_is_noticed(schema: graphql.GraphQLSchema) -> None:
    for query in QUERIES.values():
        wrong = graphql.parse(query.replace("rateLimit { cost", "rateLimit { costs"))
        assert graphql.validate(schema, wrong)
        assert graphql.validate(SCHEMA, wrong)


def test_the_simulators_schema_is_githubs(schema: graphql.GraphQLSchema) -> None:
    assert differences(SCHEMA, schema) == []


@pytest.mark.parametrize(
    ("stated", "instead", "where"),
    [
        ("databaseId: Int\n  defaultBranchRef", "databaseId: Int!\n  defaultBranchRef", "Repository.databaseId: Int"),
        ("viewer: User!", "viewer: User", "Query.viewer: User!"),
        ("nodes(ids: [ID!]!): [Node]!", "nodes(ids: [ID]!): [Node]!", "Query.nodes(ids)"),
        ("owner: String!): Repository", "owner: String): Repository", "Query.repository(owner)"),
        ("(followRenames: Boolean = true", "(followRenames: Boolean = false", "Query.repository(followRenames)"),
        (", name: String!, owner", ", owner", "Query.repository(name)"),
        ("enum IssueState { CLOSED OPEN }", "enum IssueState { CLOSED OPEN DRAFT }", "IssueState DRAFT"),
        ("type Label implements Node", "type Label implements Node & Actor", "Label implements Actor"),
        ("scalar URI", "enum URI { A }", "URI"),
    ],
)
def test_a_schema_that_differs_is_noticed(schema: graphql.GraphQLSchema, stated: str, instead: str, where: str) -> None:
    assert stated in SDL
    assert where in differences(graphql.build_schema(SDL.replace(stated, instead), assume_valid_sdl=True), schema)


def test_every_query_of_a_crawl_is_among_them() -> None:
    sent: set[str] = set()

    def answer(request: Request) -> Response:
        if request.path == "/graphql":
            sent.add(request.json["query"])
        return answer_soundly(request)

    for name in SOURCE.tasks:
        run(crawl(Batch("github", name, DAY, DAY, DAY, (entity(1), entity(2, known=False)))), answer)
    operations = {q.split()[1].partition("(")[0] for q in sent}
    assert operations == {"Counts", "Totals", "Commits", "Identity", "Resolve"}
    assert {q for q in sent if not q.startswith("query Resolve")} <= set(QUERIES.values())


def test_a_look_up_asks_for_the_names_as_they_are() -> None:
    (operation,) = graphql.parse(QUERIES["Resolve"]).definitions
    assert isinstance(operation, graphql.OperationDefinitionNode)
    asked = [f for f in operation.selection_set.selections if isinstance(f, graphql.FieldNode) and f.arguments]
    for name, field in zip(NAMES, asked, strict=True):
        owner, _, repo = name.partition("/")
        stated = {a.name.value: graphql.value_from_ast_untyped(a.value) for a in field.arguments}
        assert stated == {"owner": owner, "name": repo}


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f"{f.name}{len(f.fields)}")
@given(st.integers(1, 100))
def test_a_request_costs_what_githubs_formula_says(form: Form, size: int) -> None:
    query = read_query(form.query, None)
    assert isinstance(query, Query)
    assert form.points(size) == price(query, {"ids": ["R_1"] * size}).points


def test_what_ten_thousand_repositories_cost() -> None:
    github = GitHub(make_world(10_000), {"t": User(1, "ann")})
    spent, expected = {}, 0
    for name in ("counts", "totals"):
        size = SOURCE.tasks[name].entities_per_batch
        for start in range(0, 10_000, size):
            group = (Entity(n, "p", f"R_node{n}", (f"owner{n}/Repo.{n}",)) for n in range(start, start + size))
            batch = Batch("github", name, NIGHT, NIGHT, NIGHT, tuple(group))
            found, requests = run(crawl(batch), lambda r: ask(github, r))
            assert {g.entity_id for g in sound(found, batch).gaps} <= {GAP}
            assert len(found) + len(found.gaps) == size * len(SOURCE.tasks[name].metrics)
            expected += sum(r.cost for r in requests)
        spent[name] = github.limits.report()["points"]["graphql"]
    assert spent["counts"] == 100, "stars and forks: more than 100 points"
    assert spent["totals"] == expected == 500, "with the four counts: at most 600 points are wanted"
