"""What the fields of GitHub's GraphQL ``Query`` come to: repositories by id and name, the viewer, the rate limit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from graphql import GraphQLError, GraphQLResolveInfo

from astrid.simulators.faults import went_wrong
from astrid.simulators.github_graphql import Price
from astrid.simulators.github_routes import Routes
from astrid.simulators.limits import Reading
from astrid.simulators.repositories import Repository


@dataclass(frozen=True)
class Root:
    """Resolves the fields of ``Query`` for one request; argument names are the schema's.

    ``moment`` is by GitHub's clock; ``viewer_body`` is None for an app; ``asks_counts`` tells whether the query needs
    numbers of the night.
    """

    routes: Routes
    night: date
    moment: datetime
    viewer_body: dict[str, Any] | None
    asks_counts: bool
    bill: Price
    reading: Reading

    def viewer(self, info: GraphQLResolveInfo[Any]) -> dict[str, Any]:
        if self.viewer_body is None:
            raise GraphQLError("Resource not accessible by integration", extensions={"type": "FORBIDDEN"})
        return self.viewer_body

    def rateLimit(self, info: GraphQLResolveInfo[Any], dryRun: bool = False) -> dict[str, Any]:
        return {
            "cost": self.bill.points,
            "limit": self.reading.limit,
            "nodeCount": self.bill.nodes,
            "remaining": self.reading.remaining,
            "resetAt": datetime.fromtimestamp(self.reading.reset_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "used": self.reading.used,
        }

    def repository(
        self,
        info: GraphQLResolveInfo[Any],
        owner: str,
        name: str,
        followRenames: bool = True,
    ) -> dict[str, Any]:
        full, repositories = f"{owner}/{name}", self.routes.repositories
        found = repositories.by_name(full, self.night)
        if found is None and followRenames:
            found = repositories.by_former_name(full, self.night)
        if found is None or found.block is not None:
            raise _not_resolved(f"Could not resolve to a Repository with the name '{full}'.")
        value = self._value(found)
        if isinstance(value, GraphQLError):
            raise value
        return value

    def node(self, info: GraphQLResolveInfo[Any], id: str) -> dict[str, Any]:
        value = self._by_id(id)
        if isinstance(value, GraphQLError):
            raise value
        return value

    def nodes(self, info: GraphQLResolveInfo[Any], ids: list[str]) -> list[dict[str, Any] | GraphQLError]:
        return [self._by_id(node_id) for node_id in ids]

    def _by_id(self, node_id: str) -> dict[str, Any] | GraphQLError:
        found = self.routes.repositories.by_node(node_id, self.night)
        if found is None or found.block is not None:
            return _not_resolved(f"Could not resolve to a node with the global id of '{node_id}'")
        return self._value(found)

    def _value(self, repository: Repository) -> dict[str, Any] | GraphQLError:
        node = self.routes.node(repository, self.night)
        if self.asks_counts and (node["stargazerCount"] is None or node["forkCount"] is None):
            return GraphQLError(went_wrong(self.moment, repository.node_id))
        return node


def _not_resolved(message: str) -> GraphQLError:
    return GraphQLError(message, extensions={"type": "NOT_FOUND"})
