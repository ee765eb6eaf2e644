"""What the facts of an account mean for a relay: facts in, findings out. Nothing is asked here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backup_mx.cloud.facts import Count, Disk, Machine, Plan, Quota, Region, Reserved, Week
from backup_mx.cloud.idle import LIMIT, Use, use_of
from backup_mx.cloud.wanted import Wanted
from backup_mx.config.known import FREE_GB, FREE_SHAPE
from backup_mx.findings import Finding

REGION, PLAN, MACHINES, STORAGE, ADDRESS, IDLE = GATES = (
    "home region",
    "subscription",
    "free machines",
    "storage",
    "address",
    "idle",
)
_UPGRADE = "Upgrade the account to pay-as-you-go: within the free limits it still costs nothing."


def tenancy(own: str, wanted: Wanted) -> Iterator[Finding]:
    """Tell when the profile's account is not the config's."""
    if wanted.tenancy not in (None, own):
        saw = f"the profile belongs to {own}, the config to {wanted.tenancy}"
        yield Finding("tenancy", "fail", saw, "Choose another profile, or mend cloud.oci.tenancy.")


def region(home: Region, wanted: Wanted) -> Finding:
    """Judge where the machines are to stand: what is free is free at home only."""
    if wanted.region in (None, home.name):
        return Finding(REGION, "pass", home.name)
    saw = f"{home.name}, but cloud.oci.region is {wanted.region}"
    do = f'region = "{home.name}": nothing is free elsewhere, and a home region never changes.'
    return Finding(REGION, "warn" if wanted.may_cost else "fail", saw, do)


def plan(told: Plan | None) -> Finding:
    """Judge what the account pays by, and with it whether its machines may be stopped."""
    if told is None:
        return Finding(PLAN, "unknown", "Oracle tells of none", "Look at Billing in the console.")
    if told.kind == "PAYG":
        saw = "pay-as-you-go: no machine is stopped for being idle, and what is free stays free"
        return Finding(PLAN, "pass", saw, "")
    if told.kind != "FREE_TIER":
        return Finding(PLAN, "unknown", f"{told.kind}, which is not known here", "")
    if told.upgrade == "SUBMITTED":
        return Finding(PLAN, "warn", "free; the upgrade is being worked on", "Ask again tomorrow.")
    if told.upgrade == "ERROR":
        do = "Try another card: prepaid and virtual ones are refused."
        return Finding(PLAN, "warn", "free; the upgrade to pay-as-you-go failed", do)
    trial = " (still with the first month's credit)" if told.upgrade == "PROMO" else ""
    saw = f"free only{trial}: Oracle may stop a machine that it calls idle, and a relay mostly is"
    return Finding(PLAN, "warn", saw, _UPGRADE)


def machines(quotas: Sequence[Quota], there: Sequence[Machine], wanted: Wanted) -> Finding:
    """Judge whether the free machines that are still to be made can be."""
    saw = "; ".join(_place(each) for each in quotas) or "the account has no limit for them"
    missing = len(wanted.missing(each.name for each in there))
    if wanted.relays and not missing:
        return Finding(MACHINES, "pass", saw)
    here = [each for each in quotas if each.limit]
    if not here:
        return Finding(MACHINES, "fail", saw, f"Only a home region gives {FREE_SHAPE}.")
    offered = [each for each in here if each.offered]
    if not offered:
        saw = f"{saw}, but this region has no {FREE_SHAPE} at all"
        return Finding(MACHINES, "fail", saw, "Take another provider: any small VPS will do.")
    if any(each.used is None for each in offered):
        return Finding(MACHINES, "unknown", saw, "Look at Limits in the console.")
    left = max(each.limit - (each.used or 0) for each in offered)
    if left < missing:
        saw = f"{saw}; {missing} are still to be made"
        return Finding(MACHINES, "fail", saw, "Remove a machine that is not needed.")
    return Finding(MACHINES, "pass", saw)


def _place(quota: Quota) -> str:
    if not quota.limit:
        return f"{quota.domain} gives none"
    used = "an unknown number" if quota.used is None else str(quota.used)
    return f"{quota.domain} gives {quota.limit}, {used} in use"


def storage(disks: Sequence[Disk], wanted: Wanted) -> Finding:
    """Judge whether all disks, with those still to be made, stay within what is free."""
    used = sum(each.gigabytes for each in disks)
    names = [each.name for each in disks]
    more = sum(each.boot_gb for each in wanted.missing(_owner(name) for name in names))
    more += sum(each.volume_gb for each in wanted.relays if each.volume not in names)
    saw = f"{used} of {FREE_GB} free GB in use on {len(disks)} disks"
    saw += f", {more} GB are still to be made" if more else ""
    if used + more <= FREE_GB:
        return Finding(STORAGE, "pass", saw)
    do = "Smaller or fewer disks: beyond it, a free account gets none and a paying one pays."
    return Finding(STORAGE, "warn" if wanted.may_cost else "fail", saw, do)


def _owner(disk: str) -> str:
    """Return the machine that a boot volume was made with: Oracle names the one after the other."""
    return disk.removesuffix(" (Boot Volume)")


def addresses(told: Sequence[Reserved], count: Count | None, wanted: Wanted) -> Iterator[Finding]:
    """Judge each relay's address, or without relays what is reserved."""
    known = {each.address: each for each in told}
    room = f"{count.used} of {count.limit} reserved" if count else f"{len(told)} reserved"
    if not wanted.relays:
        names = ", ".join(known)
        yield Finding(ADDRESS, "pass", f"{room}: {names}" if names else room)
    unmade = [each for each in wanted.relays if each.address not in known]
    short = count is not None and count.limit - count.used < len(unmade)
    for relay in wanted.relays:
        reserved = known.get(relay.address)
        saw = f"{relay.hostname}: {relay.address}"
        if reserved is None and relay.to_reserve:
            do = "Each relay needs one: free one that is not needed, or upgrade." if short else ""
            saw = f"{relay.hostname}: none yet; {room}"
            yield Finding(ADDRESS, "fail" if short else "pass", saw, do)
        elif reserved is None:
            do = "A new machine would get another one: write the reserved one, or reserve this one."
            yield Finding(ADDRESS, "fail", f"{saw} is not reserved here", do)
        else:
            saw = f"{saw} is reserved" + ("" if reserved.assigned else ", and no machine has it")
            yield Finding(ADDRESS, "pass", saw)


def idle(machine: Machine, week: Week, told: Plan | None) -> Finding:
    """Judge whether Oracle may stop ``machine``, or has."""
    if machine.state in ("STOPPED", "STOPPING"):
        do = "Start it in the console, if the shape is to be had: its disks are kept. " + _UPGRADE
        return Finding(IDLE, "fail", f"{machine.name} is stopped", do)
    if machine.state != "RUNNING":
        return Finding(IDLE, "unknown", f"{machine.name} is {machine.state.lower()}", "Ask again.")
    use = use_of(machine, week)
    saw = f"{machine.name}: {_figures(use)}"
    if told is not None and told.kind == "PAYG":
        return Finding(IDLE, "pass", f"{saw}; with pay-as-you-go it does not matter")
    if use.idle is None:
        do = "The first figures come minutes after the start, by the Oracle Cloud Agent."
        return Finding(IDLE, "unknown", saw, do)
    if use.idle:
        saw = f"{saw}; all below {LIMIT:.0f} %: Oracle calls it idle and may stop it"
        return Finding(IDLE, "warn", saw, _UPGRADE)
    return Finding(IDLE, "pass", f"{saw}; not idle by Oracle's rule")


def _figures(use: Use) -> str:
    def told(name: str, figure: float | None) -> str:
        return f"{name} not measured" if figure is None else f"{name} {figure:.1f} %"

    parts = [told("95th percentile of CPU", use.cpu), told("network", use.network)]
    parts += [told("memory", use.memory)] if use.memory is not None else []
    return f"{', '.join(parts)} over {use.days:.1f} days"
