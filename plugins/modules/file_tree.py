"""Ansible module: write a whole tree of files in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: file_tree
short_description: Write a whole tree of files in one call
description:
  - Everything is checked before the first file is touched. Each file is written beside its place with its final
    owner and mode, then renamed, so a reader sees the old or the new one and never a file with the wrong mode.
  - What a run that was killed while it wrote has left in these folders is removed.
  - Secret content appears in no result, no diff and no log of the target.
options:
  root: {description: Absolute folder below which all paths lie; made when missing., type: path, required: true}
  root_mode: {description: Mode of I(root)., type: str, default: "0755"}
  files:
    description: The files.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Path relative to I(root)., type: str, required: true}
      content: {description: Text of the file., type: str}
      secret_content: {description: Text of the file that nobody else may see., type: str}
      mode: {description: Octal mode of four digits; a secret may not be open to others., type: str, default: "0644"}
      owner: {description: Name or number of the owner., type: str, default: root}
      group: {description: Name or number of the group., type: str, default: root}
      validate:
        description: Command that judges the new file before it takes its place; C(%s) stands for its path.
        type: str
  directories:
    description: Folders below I(root) that need a mode or owner of their own; others are made with 0755, root.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Path relative to I(root)., type: str, required: true}
      mode: {description: Octal mode., type: str, default: "0755"}
      owner: {description: Name or number of the owner., type: str, default: root}
      group: {description: Name or number of the group., type: str, default: root}
  purge:
    description:
      - Folders below I(root) (C(.) for all of it) in which files and links that are not listed are removed, at any
        depth. A folder directly below C(/) is refused.
    type: list
    elements: str
    default: []
  apply:
    description:
      - Shell command that puts the files into force, run after anything was changed. A mark on disk says that it is
        due until it has succeeded, so that the next run makes good one that was killed in between (a handler would
        be forgotten).
    type: str
  before:
    description:
      - Shell command that is run before the first file is touched, only where one will be or where I(apply) is still
        due. Where it fails nothing is touched.
    type: str
  marks: {description: How the paths of these marks begin., type: path, default: /var/lib/pi-commerce.unapplied-}
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [pi-commerce]
"""

EXAMPLES = r"""
- name: Write the configuration and a password
  file_tree:
    root: /etc/shop
    files:
      - {path: shop.conf, content: "port = 1\n"}
      - {path: secrets/password, secret_content: "{{ password }}", mode: "0400", owner: "999"}
"""

RETURN = r"""
written: {description: Files and folders with new content., type: list, elements: str, returned: always}
adjusted: {description: Files and folders with mode or owner set right., type: list, elements: str, returned: always}
removed: {description: Files that were taken away., type: list, elements: str, returned: always}
applied: {description: "Whether I(apply) was run, or would be.", type: bool, returned: always}
"""

import grp
import os
import pwd
import re
import shlex
import stat
import subprocess
import tempfile
from collections.abc import Callable
from typing import NamedTuple

from ansible.module_utils.basic import AnsibleModule

HIDDEN = "(secret content)\n"
# How files begin that are being written.
TEMPORARY = ".file_tree-"
# Stands for the id of a user or group that an earlier task would have made, had this not been a check.
NOT_YET = -1


class SilentModule(AnsibleModule):
    """A module that logs nothing on the target.

    `AnsibleModule(no_log=True)` does not do that: Ansible overwrites it with the task's own `no_log`. And the log
    masks exact values only, so a secret with a line break or a quote stands in it readable.
    """

    def log(self, msg: str, log_args: dict | None = None) -> None:
        """Log nothing."""


class Refused(Exception):
    """The request cannot be carried out; nothing was changed."""


class Entry(NamedTuple):
    """A file (`content` is bytes) or folder (`content` is None) as it shall be."""

    path: str
    mode: int
    uid: int
    gid: int
    content: bytes | None = None
    secret: bool = False
    validate: str | None = None


def number(name: str, lookup: Callable[[str], tuple], kind: str, path: str, check_mode: bool) -> int:
    """Numeric id of a user or group given by name or number."""
    if name.isdigit():
        return int(name)
    try:
        return int(lookup(name)[2])
    except KeyError:
        if check_mode:
            return NOT_YET
        raise Refused(
            f"{path}: there is no {kind} {name!r} on this machine; create it first or give its number"
        ) from None


def below(path: str, root: str) -> bool:
    """Whether `path` is `root` or lies in it."""
    return path == root or path.startswith(root.rstrip("/") + "/")


def inside(root: str, path: str) -> str:
    """Absolute path of a relative one; refuses what leaves the root, by name or through a link."""
    if os.path.isabs(path) or ".." in path.split("/"):
        raise Refused(f"{path!r}: must be relative to {root} and stay below it")
    joined = os.path.normpath(os.path.join(root, path))
    if not below(os.path.realpath(joined), os.path.realpath(root)):
        raise Refused(f"{path!r}: a link on the way leads out of {root}; remove the link")
    return joined


def octal(mode: str, path: str) -> int:
    """Mode as a number. Four digits are asked for because YAML turns an unquoted 0644 into 420."""
    if not re.fullmatch(r"[0-7]{4}", mode):
        raise Refused(f"{path}: mode {mode!r} is not octal with four digits; write for example '0644', in quotes")
    return int(mode, 8)


def read_request(params: dict, check_mode: bool) -> tuple[list[Entry], list[Entry]]:
    """Folders (parents first) and files of the request, checked."""
    root = params["root"]
    if not os.path.isabs(root):
        raise Refused(f"root {root!r}: must be absolute")
    folders = {root: Entry(root, octal(params["root_mode"], root), 0, 0)}
    named: set[str] = set()
    files: dict[str, Entry] = {}

    def entry(item: dict, content: bytes | None, secret: bool) -> Entry:
        path = inside(root, item["path"])
        uid = number(item["owner"], pwd.getpwnam, "user", item["path"], check_mode)
        gid = number(item["group"], grp.getgrnam, "group", item["path"], check_mode)
        return Entry(path, octal(item["mode"], item["path"]), uid, gid, content, secret, item.get("validate"))

    for item in params["directories"]:
        made = entry(item, None, False)
        if made.path in named:
            raise Refused(f"{item['path']}: is listed twice")
        named.add(made.path)
        folders[made.path] = made
    for item in params["files"]:
        secret = item["secret_content"] is not None
        made = entry(item, (item["secret_content"] if secret else item["content"]).encode(), secret)
        if made.path in files:
            raise Refused(f"{item['path']}: is listed twice")
        if secret and made.mode & 0o007:
            raise Refused(f"{item['path']}: mode {item['mode']} shows a secret to everybody; set for example '0400'")
        if os.path.islink(made.path) or (os.path.exists(made.path) and not os.path.isfile(made.path)):
            raise Refused(f"{made.path}: is there and is not a plain file; remove it first")
        files[made.path] = made
    for path in list(folders) + list(files):
        parent = os.path.dirname(path)
        while parent != root and below(parent, root):
            folders.setdefault(parent, Entry(parent, 0o755, 0, 0))
            parent = os.path.dirname(parent)
    for path in folders:
        if path in files or (os.path.lexists(path) and not os.path.isdir(path)):
            raise Refused(f"{path}: has to be a folder and is a file")
    for folder in params["purge"]:
        swept = inside(root, folder)
        if len(os.path.realpath(swept).split("/")) < 3:
            raise Refused(f"purge {folder!r}: would empty {swept}, which belongs to the system; name a folder in it")
    return [folders[path] for path in sorted(folders)], list(files.values())


def differs(entry: Entry) -> bool:
    """Whether mode or owner of an existing file or folder are not as they shall be."""
    found = os.stat(entry.path)
    return (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) != (entry.mode, entry.uid, entry.gid)


def current(entry: Entry) -> bytes | None:
    """Content of the file now, None when there is none."""
    try:
        with open(entry.path, "rb") as source:
            return source.read()
    except FileNotFoundError:
        return None


def write(entry: Entry) -> None:
    """Put the file in its place in one step."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(entry.path), prefix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as target:
            target.write(entry.content or b"")
            target.flush()
            os.fchown(target.fileno(), entry.uid, entry.gid)
            os.fchmod(target.fileno(), entry.mode)
            os.fsync(target.fileno())
        if entry.validate:
            judge(entry, temporary)
        os.rename(temporary, entry.path)
    except BaseException:
        os.unlink(temporary)
        raise


def make_folder(folder: Entry) -> None:
    """Make a folder that has its owner and mode from the first moment; nobody would set them right later."""
    parent = os.path.dirname(folder.path)
    os.makedirs(parent, exist_ok=True)
    temporary = tempfile.mkdtemp(dir=parent, prefix=TEMPORARY)
    os.chown(temporary, folder.uid, folder.gid)
    os.chmod(temporary, folder.mode)
    os.rename(temporary, folder.path)


def judge(entry: Entry, temporary: str) -> None:
    """Refuse a new file that its own program refuses."""
    command = [word.replace("%s", temporary) for word in shlex.split(entry.validate or "")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise Refused(f"{entry.path}: {command[0]} refuses the new file, the old one stays: {done.stdout.strip()}")


def abandoned(folders: list[Entry]) -> list[str]:
    """Half-made files and folders that a killed run has left in the folders of this tree and beside them."""
    places = {place for folder in folders for place in (folder.path, os.path.dirname(folder.path))}
    names = ((place, name) for place in places if os.path.isdir(place) for name in os.listdir(place))
    return [os.path.join(place, name) for place, name in names if name.startswith(TEMPORARY)]


def remove(path: str) -> None:
    """Take away a file, a link, or a folder that was never filled."""
    if os.path.isdir(path) and not os.path.islink(path):
        os.rmdir(path)
    else:
        os.unlink(path)


class Due:
    """The mark that says: files of this root were changed, and are not yet in force."""

    def __init__(self, marks: str, root: str, command: str | None) -> None:
        """Nothing is due where there is no command."""
        self.command = command
        self.path = marks + (root.strip("/").replace("/", "-") or "root")

    def __bool__(self) -> bool:
        """Whether the command has to run."""
        return bool(self.command) and os.path.exists(self.path)

    def set(self) -> None:
        """Leave the mark, on disk before the first file is touched."""
        if self.command:
            with open(self.path, "w") as mark:
                os.fsync(mark.fileno())

    def settle(self) -> None:
        """Run the command; the mark goes when it has succeeded."""
        shell(self.command or "", "The files are written but not in force; correct them and run again")
        os.unlink(self.path)


def shell(command: str, otherwise: str) -> None:
    """Run a command that has to succeed; `otherwise` says what it means where it does not."""
    words = ["/bin/sh", "-c", command]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise Refused(f"{command}: exit code {done.returncode}: {done.stdout.strip()}. {otherwise}")


def undeclared(root: str, purge: list, files: list[Entry]) -> list[str]:
    """Files and links in the purged folders that the request does not list."""
    declared = {entry.path for entry in files}
    found: set[str] = set()
    for folder in purge:
        for base, folders, names in os.walk(inside(root, folder)):
            found.update(os.path.join(base, name) for name in names)
            found.update(path for path in (os.path.join(base, name) for name in folders) if os.path.islink(path))
    return sorted(found - declared)


def content_diff(entry: Entry, before: bytes | None) -> dict[str, str]:
    """What changes in a file, for `--diff`."""
    after = entry.content or b""
    if entry.secret:
        # The two must differ, or Ansible prints nothing.
        texts = ("" if before is None else HIDDEN.replace(")", ", old)"), HIDDEN)
    else:
        texts = ((before or b"").decode(errors="replace"), after.decode())
    return {"before_header": entry.path, "after_header": entry.path, "before": texts[0], "after": texts[1]}


def rights_diff(entry: Entry) -> dict[str, str]:
    """What changes in the mode and owner of a file or folder, for `--diff`."""
    found = os.stat(entry.path)
    rows = ((stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid), (entry.mode, entry.uid, entry.gid))
    before, after = (f"mode {mode:04o}, owner {uid}, group {gid}\n" for mode, uid, gid in rows)
    return {"before_header": entry.path, "after_header": entry.path, "before": before, "after": after}


def apply(module: AnsibleModule) -> dict:
    """Carry out the request; returns the module's result."""
    folders, files = read_request(module.params, module.check_mode)
    due = Due(module.params["marks"], module.params["root"], module.params["apply"])
    removed = sorted({*undeclared(module.params["root"], module.params["purge"], files), *abandoned(folders)})
    if not module.check_mode and (removed or due or any(outdated(module, entry) for entry in folders + files)):
        if module.params["before"]:
            shell(module.params["before"], "No file was touched now")
        due.set()
    written, adjusted, diffs = [], [], []
    for folder in folders:
        if not os.path.isdir(folder.path):
            written.append(folder.path)
            if not module.check_mode:
                make_folder(folder)
        elif declared_folder(module, folder) and differs(folder):
            adjusted.append(folder.path)
            diffs.append(rights_diff(folder))
            if not module.check_mode:
                os.chown(folder.path, folder.uid, folder.gid)
                os.chmod(folder.path, folder.mode)
    for entry in files:
        before = current(entry)
        if before != entry.content:
            written.append(entry.path)
            diffs.append(content_diff(entry, before))
            if not module.check_mode:
                write(entry)
        elif differs(entry):
            adjusted.append(entry.path)
            diffs.append(rights_diff(entry))
            if not module.check_mode:
                os.chown(entry.path, entry.uid, entry.gid)
                os.chmod(entry.path, entry.mode)
    for path in removed:
        diffs.append({"before_header": path, "after_header": "/dev/null", "before": "(removed)\n", "after": ""})
        if not module.check_mode:
            remove(path)
    changed = bool(written or adjusted or removed)
    applied = bool(due) or (module.params["apply"] is not None and changed)
    if due and not module.check_mode:
        due.settle()
    return {
        "changed": changed or applied,
        "applied": applied,
        "written": written,
        "adjusted": adjusted,
        "removed": removed,
        **({"diff": diffs} if module._diff else {}),
    }


def outdated(module: AnsibleModule, entry: Entry) -> bool:
    """Whether a file or folder will be touched."""
    if entry.content is None:
        return not os.path.isdir(entry.path) or (declared_folder(module, entry) and differs(entry))
    return current(entry) != entry.content or differs(entry)


def declared_folder(module: AnsibleModule, folder: Entry) -> bool:
    """Whether the request says how this folder shall be; folders that were there already belong to others."""
    root = module.params["root"]
    named = {os.path.normpath(os.path.join(root, item["path"])) for item in module.params["directories"]}
    return folder.path in named or (folder.path == root and module.params["root_mode"] != "0755")


def main() -> None:
    """Entry point of the module."""
    owner = {"owner": {"type": "str", "default": "root"}, "group": {"type": "str", "default": "root"}}
    file_options = {
        "path": {"type": "str", "required": True},
        "content": {"type": "str"},
        "secret_content": {"type": "str", "no_log": True},
        "mode": {"type": "str", "default": "0644"},
        "validate": {"type": "str"},
        **owner,
    }
    folder_options = {
        "path": {"type": "str", "required": True},
        "mode": {"type": "str", "default": "0755"},
        **owner,
    }
    module = SilentModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "root_mode": {"type": "str", "default": "0755"},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": file_options,
                "mutually_exclusive": [("content", "secret_content")],
                "required_one_of": [("content", "secret_content")],
            },
            "directories": {"type": "list", "elements": "dict", "default": [], "options": folder_options},
            "purge": {"type": "list", "elements": "str", "default": []},
            "apply": {"type": "str"},
            "before": {"type": "str"},
            "marks": {"type": "path", "default": "/var/lib/pi-commerce.unapplied-"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**apply(module))
    except (Refused, OSError) as problem:
        module.fail_json(msg=str(problem))


if __name__ == "__main__":
    main()
