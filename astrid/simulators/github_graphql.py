"""The part of GitHub's GraphQL interface that counts need: its schema, its price list, its limits on a query.

The types are a subset of GitHub's public schema, with the same names and signatures. Facts: GitHub
docs, "Rate limits and query limits for the GraphQL API". The wording of the messages about page
sizes and id lists is from memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLInterfaceType,
    GraphQLObjectType,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    build_schema,
    execute_sync,
    get_named_type,
    get_operation_ast,
    parse,
    validate,
    value_from_ast_untyped,
)

MAX_IDS: Final = 100
MAX_PAGE: Final = 100
MAX_NODES: Final = 500_000
COUNT_FIELDS: Final = frozenset(
    {"stargazerCount", "forkCount", "stargazers", "watchers", "issues", "pullRequests", "releases"}
)

SDL: Final = """
scalar DateTime
scalar GitTimestamp
scalar URI

interface Node { id: ID! }
interface Actor { login: String! }
interface RepositoryOwner { id: ID! login: String! }

enum IssueState { CLOSED OPEN }
enum PullRequestState { CLOSED MERGED OPEN }

type PageInfo { endCursor: String hasNextPage: Boolean! hasPreviousPage: Boolean! startCursor: String }
type User implements Node & Actor & RepositoryOwner { databaseId: Int id: ID! login: String! }
type Organization implements Node & Actor & RepositoryOwner { databaseId: Int id: ID! login: String! }
type Issue implements Node {
  databaseId: Int
  id: ID!
  labels(after: String, before: String, first: Int, last: Int): LabelConnection
}
type Label implements Node { id: ID! name: String! }
type PullRequest implements Node { databaseId: Int id: ID! }
type Release implements Node { databaseId: Int id: ID! }
type StargazerEdge { cursor: String! node: User! starredAt: DateTime! }

type UserConnection { nodes: [User] pageInfo: PageInfo! totalCount: Int! }
type LabelConnection { nodes: [Label] pageInfo: PageInfo! totalCount: Int! }
type IssueConnection { nodes: [Issue] pageInfo: PageInfo! totalCount: Int! }
type PullRequestConnection { nodes: [PullRequest] pageInfo: PageInfo! totalCount: Int! }
type ReleaseConnection { nodes: [Release] pageInfo: PageInfo! totalCount: Int! }
type StargazerConnection { edges: [StargazerEdge] nodes: [User] pageInfo: PageInfo! totalCount: Int! }

interface GitObject { id: ID! }
type Commit implements GitObject & Node {
  history(
    after: String, before: String, first: Int, last: Int, since: GitTimestamp, until: GitTimestamp
  ): CommitHistoryConnection!
  id: ID!
}
type CommitHistoryConnection { nodes: [Commit] pageInfo: PageInfo! totalCount: Int! }
type Ref implements Node { id: ID! name: String! target: GitObject }

type Repository implements Node {
  createdAt: DateTime!
  databaseId: Int
  defaultBranchRef: Ref
  description: String
  forkCount: Int!
  id: ID!
  isArchived: Boolean!
  isDisabled: Boolean!
  isEmpty: Boolean!
  isFork: Boolean!
  isLocked: Boolean!
  isMirror: Boolean!
  isPrivate: Boolean!
  issues(
    after: String, before: String, first: Int, last: Int, labels: [String!], states: [IssueState!]
  ): IssueConnection!
  name: String!
  nameWithOwner: String!
  owner: RepositoryOwner!
  pullRequests(
    after: String, before: String, first: Int, last: Int, labels: [String!], states: [PullRequestState!]
  ): PullRequestConnection!
  pushedAt: DateTime
  releases(after: String, before: String, first: Int, last: Int): ReleaseConnection!
  stargazerCount: Int!
  stargazers(after: String, before: String, first: Int, last: Int): StargazerConnection!
  updatedAt: DateTime!
  url: URI!
  watchers(after: String, before: String, first: Int, last: Int): UserConnection!
}

type RateLimit { cost: Int! limit: Int! nodeCount: Int! remaining: Int! resetAt: DateTime! used: Int! }

type Query {
  node(id: ID!): Node
  nodes(ids: [ID!]!): [Node]!
  rateLimit(dryRun: Boolean = false): RateLimit
  repository(followRenames: Boolean = true, name: String!, owner: String!): Repository
  viewer: User!
}
"""

SCHEMA: Final = build_schema(SDL)


@dataclass(frozen=True, slots=True)
class Price:
    """What a query costs before it runs: points, the nodes it may return, and why it may not run."""

    points: int
    nodes: int
    errors: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed and validated document with the operation to run."""

    document: DocumentNode
    operation: OperationDefinitionNode
    asks_counts: bool
    """Whether it needs numbers of the day; names and ids can be told on a day without any."""


@lru_cache(maxsize=256)
def read_query(text: str, operation_name: str | None) -> Query | tuple[dict[str, Any], ...]:
    """Parse and validate a query; the errors, as the answer states them, if it is not valid."""
    try:
        document = parse(text)
    except GraphQLError as exc:
        return (format_error(exc),)
    invalid = validate(SCHEMA, document)
    if invalid:
        return tuple(format_error(e) for e in invalid)
    operation = get_operation_ast(document, operation_name)
    if operation is None or operation.operation is not OperationType.QUERY:
        return ({"message": "No query operation to run was provided"},)
    return Query(document, operation, any(name in text for name in COUNT_FIELDS))


def price(query: Query, variables: Mapping[str, Any]) -> Price:
    """Return the cost by GitHub's formula: requests per connection summed, divided by 100, rounded, at least 1.

    Each connection counts one request for every parent that it can have. ``nodes(ids:)`` is no
    connection but multiplies what is below it. Its ids count as nodes too (our reading).
    """
    fragments = {d.name.value: d for d in query.document.definitions if isinstance(d, FragmentDefinitionNode)}
    values = {
        d.variable.name.value: value_from_ast_untyped(d.default_value)
        for d in query.operation.variable_definitions or ()
        if d.default_value is not None
    } | dict(variables)
    bill = _Bill(fragments, values)
    assert SCHEMA.query_type is not None
    bill.add(query.operation.selection_set, SCHEMA.query_type, 1)
    if bill.nodes > MAX_NODES:
        bill.refuse(
            "MAX_NODE_LIMIT_EXCEEDED",
            f"This query requests up to {bill.nodes:,} possible nodes which exceeds the limit of {MAX_NODES:,}.",
        )
    return Price(max(1, math.floor(bill.requests / 100 + 0.5)), bill.nodes, tuple(bill.errors))


class _Bill:
    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode], values: Mapping[str, Any]) -> None:
        self.fragments = fragments
        self.values = dict(values)
        self.requests = 0
        self.nodes = 0
        self.errors: list[dict[str, Any]] = []

    def add(self, selection: SelectionSetNode, parent: GraphQLObjectType | GraphQLInterfaceType, times: int) -> None:
        """Charge a selection whose parent object can occur ``times`` times."""
        for owner, field in self._fields(selection, parent):
            name = field.name.value
            definition = owner.fields.get(name)
            if definition is None or field.selection_set is None:
                continue
            kind = get_named_type(definition.type)
            args = {a.name.value: value_from_ast_untyped(a.value, self.values) for a in field.arguments or ()}
            below = times
            if owner is SCHEMA.query_type and name == "nodes":
                count = len(args["ids"]) if isinstance(args.get("ids"), list | tuple) else 1
                if count > MAX_IDS:
                    self.refuse(
                        "ARGUMENT_LIMIT", f"You may not provide more than {MAX_IDS} node ids; you provided {count}."
                    )
                below = times * count
                self.nodes += count
            elif kind.name.endswith("Connection"):
                self.requests += times
                below = times * self._page(name, args, field)
                self.nodes += below
            if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
                self.add(field.selection_set, kind, below)

    def refuse(self, kind: str, message: str) -> None:
        """Note why the query may not run."""
        self.errors.append({"type": kind, "message": message})

    def _page(self, name: str, args: Mapping[str, Any], field: FieldNode) -> int:
        size = args.get("first", args.get("last"))
        if not isinstance(size, int):
            assert field.selection_set is not None
            listed = {f.name.value for f in field.selection_set.selections if isinstance(f, FieldNode)}
            if listed & {"nodes", "edges"}:
                self.refuse(
                    "MISSING_PAGINATION_BOUNDARIES",
                    f"You must provide a `first` or `last` value to properly paginate the `{name}` connection.",
                )
            return 0
        if not 1 <= size <= MAX_PAGE:
            which = "first" if "first" in args else "last"
            self.refuse(
                "EXCESSIVE_PAGINATION",
                f"Requesting {size} records on the `{name}` connection exceeds the `{which}` limit of {MAX_PAGE}.",
            )
        return size

    def _fields(
        self, selection: SelectionSetNode, parent: GraphQLObjectType | GraphQLInterfaceType
    ) -> Iterator[tuple[GraphQLObjectType | GraphQLInterfaceType, FieldNode]]:
        for node in selection.selections:
            if isinstance(node, FieldNode):
                yield parent, node
                continue
            spread = self.fragments[node.name.value] if isinstance(node, FragmentSpreadNode) else node
            assert isinstance(spread, FragmentDefinitionNode | InlineFragmentNode)
            narrowed = SCHEMA.get_type(spread.type_condition.name.value) if spread.type_condition else parent
            if isinstance(narrowed, GraphQLObjectType | GraphQLInterfaceType):
                yield from self._fields(spread.selection_set, narrowed)


def run_query(query: Query, root: object, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Run a query on ``root``, whose methods resolve the fields of ``Query``; data and errors in GitHub's form."""
    result = execute_sync(
        SCHEMA, query.document, root, variable_values=dict(variables), operation_name=_name(query.operation)
    )
    body: dict[str, Any] = {"data": result.data}
    if result.errors:
        body["errors"] = [format_error(e) for e in result.errors]
    return body


def _name(operation: OperationDefinitionNode) -> str | None:
    return operation.name.value if operation.name else None


def format_error(error: GraphQLError) -> dict[str, Any]:
    """Write an error as GitHub does: ``type`` first if it has one, then path, locations, message."""
    body: dict[str, Any] = {}
    if error.extensions and "type" in error.extensions:
        body["type"] = error.extensions["type"]
    if error.path:
        body["path"] = list(error.path)
    if error.locations:
        body["locations"] = [{"line": at.line, "column": at.column} for at in error.locations]
    body["message"] = error.message
    return body
