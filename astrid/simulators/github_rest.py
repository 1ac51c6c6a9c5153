"""The objects of GitHub's REST interface: repositories, users, releases.

A repository has the keys of recorded answers, a user a part of them, a release those of GitHub's REST description (from
memory). Topics, users and what releases hold are made up.
"""

from __future__ import annotations

import hashlib
from datetime import date
from typing import Any, Final

from astrid.simulators.upstream import made_up

TOPICS: Final = (
    "agents",
    "ai",
    "chatbot",
    "deep-learning",
    "llm",
    "machine-learning",
    "mcp",
    "nlp",
    "python",
    "rag",
    "transformers",
    "vector-database",
)

# Link name -> template below the repository's URL; the same for every repository (recorded 2024-09-17).
_LINKS: Final = {
    "forks_url": "/forks",
    "keys_url": "/keys{/key_id}",
    "collaborators_url": "/collaborators{/collaborator}",
    "teams_url": "/teams",
    "hooks_url": "/hooks",
    "issue_events_url": "/issues/events{/number}",
    "events_url": "/events",
    "assignees_url": "/assignees{/user}",
    "branches_url": "/branches{/branch}",
    "tags_url": "/tags",
    "blobs_url": "/git/blobs{/sha}",
    "git_tags_url": "/git/tags{/sha}",
    "git_refs_url": "/git/refs{/sha}",
    "trees_url": "/git/trees{/sha}",
    "statuses_url": "/statuses/{sha}",
    "languages_url": "/languages",
    "stargazers_url": "/stargazers",
    "contributors_url": "/contributors",
    "subscribers_url": "/subscribers",
    "subscription_url": "/subscription",
    "commits_url": "/commits{/sha}",
    "git_commits_url": "/git/commits{/sha}",
    "comments_url": "/comments{/number}",
    "issue_comment_url": "/issues/comments{/number}",
    "contents_url": "/contents/{+path}",
    "compare_url": "/compare/{base}...{head}",
    "merges_url": "/merges",
    "archive_url": "/{archive_format}{/ref}",
    "downloads_url": "/downloads",
    "issues_url": "/issues{/number}",
    "pulls_url": "/pulls{/number}",
    "milestones_url": "/milestones{/number}",
    "notifications_url": "/notifications{?since,all,participating}",
    "labels_url": "/labels{/name}",
    "releases_url": "/releases{/id}",
    "deployments_url": "/deployments",
}


def repository_body(node: dict[str, Any], base_url: str) -> dict[str, Any]:
    """Return the REST object of a repository, given its GraphQL object with all counts.

    ``watchers`` and ``watchers_count`` mean stars, as upstream; ``open_issues`` counts pull requests too.
    """
    full_name = node["nameWithOwner"]
    login = node["owner"]["login"]
    url = f"{base_url}/repos/{full_name}"
    stars, forks = node["stargazerCount"], node["forkCount"]
    open_issues = node["issues"]["totalCount"] + node["pullRequests"]["totalCount"]
    owner = {
        "login": login,
        "id": node["databaseId"] + 1,
        "node_id": node["owner"]["id"],
        "url": f"{base_url}/users/{login}",
        "html_url": f"https://github.com/{login}",
        "type": "Organization",
        "site_admin": False,
    }
    return {
        "id": node["databaseId"],
        "node_id": node["id"],
        "name": node["name"],
        "full_name": full_name,
        "private": node["isPrivate"],
        "owner": owner,
        "html_url": node["url"],
        "description": node["description"],
        "fork": node["isFork"],
        "url": url,
        **{name: url + path for name, path in _LINKS.items()},
        "created_at": node["createdAt"],
        "updated_at": node["updatedAt"],
        "pushed_at": node["pushedAt"],
        "git_url": f"git://github.com/{full_name}.git",
        "ssh_url": f"git@github.com:{full_name}.git",
        "clone_url": f"https://github.com/{full_name}.git",
        "svn_url": f"https://github.com/{full_name}",
        "homepage": None,
        "size": 0,
        "stargazers_count": stars,
        "watchers_count": stars,
        "language": None,
        "has_issues": True,
        "has_projects": True,
        "has_downloads": True,
        "has_wiki": False,
        "has_pages": False,
        "has_discussions": True,
        "forks_count": forks,
        "mirror_url": None,
        "archived": node["isArchived"],
        "disabled": node["isDisabled"],
        "open_issues_count": open_issues,
        "license": None,
        "allow_forking": True,
        "is_template": False,
        "web_commit_signoff_required": False,
        "topics": topics_of(node["databaseId"]),
        "visibility": "public",
        "forks": forks,
        "open_issues": open_issues,
        "watchers": stars,
        "default_branch": "main",
        "temp_clone_token": None,
        "custom_properties": {},
        "organization": owner,
        "network_count": forks,
        "subscribers_count": node["watchers"]["totalCount"],
    }


def topics_of(database_id: int) -> list[str]:
    """Return the made-up topics of a repository, by its number: one in four of those that there are."""
    return [topic for topic in TOPICS if made_up(f"{database_id}|topic|{topic}") < 0.25]


def user_body(login: str, user_id: int, base_url: str) -> dict[str, Any]:
    """Return a user as it stands in other objects."""
    return {
        "login": login,
        "id": user_id,
        "node_id": f"U_{user_id}",
        "avatar_url": f"https://avatars.githubusercontent.com/u/{user_id}?v=4",
        "gravatar_id": "",
        "url": f"{base_url}/users/{login}",
        "html_url": f"https://github.com/{login}",
        "type": "User",
        "site_admin": False,
    }


def release_body(number: int, day: date, database_id: int, full_name: str, base_url: str) -> dict[str, Any]:
    """Return the release that a repository published as its ``number``th."""
    release_id = int.from_bytes(hashlib.blake2b(f"{database_id}|{number}".encode(), digest_size=4).digest(), "big")
    url, page, tag = f"{base_url}/repos/{full_name}", f"https://github.com/{full_name}", f"v0.{number}.0"
    published_at = f"{day}T16:00:00Z"
    return {
        "url": f"{url}/releases/{release_id}",
        "assets_url": f"{url}/releases/{release_id}/assets",
        "upload_url": f"https://uploads.github.com/repos/{full_name}/releases/{release_id}/assets{{?name,label}}",
        "html_url": f"{page}/releases/tag/{tag}",
        "id": release_id,
        "author": user_body("releaser", 1, base_url),
        "node_id": f"RE_{release_id}",
        "tag_name": tag,
        "target_commitish": "main",
        "name": tag,
        "draft": False,
        "immutable": False,
        "prerelease": False,
        "created_at": published_at,
        "updated_at": published_at,
        "published_at": published_at,
        "assets": [],
        "tarball_url": f"{url}/tarball/{tag}",
        "zipball_url": f"{url}/zipball/{tag}",
        "body": f"Release {number}.",
    }
