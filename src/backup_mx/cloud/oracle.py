"""Oracle's API, by Oracle's own Python SDK: the only module that knows either.

It only asks. The key is the operator's own, from ~/.oci/config. Every question is bounded: three
tries, and under two minutes with all of them.
"""

from __future__ import annotations

import configparser
import importlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from backup_mx.cloud.facts import (
    DAYS,
    STEP,
    Count,
    Disk,
    Machine,
    Plan,
    Quota,
    Region,
    Reserved,
    Week,
)
from backup_mx.errors import CloudError, HostError, SecretError, UnreachableError

Told = Any
"""Whatever comes out of the SDK, which has no types."""

_TRIES, _SECONDS = 3, 60
_CONNECT, _READ = 10, 30
_GONE = ("TERMINATING", "TERMINATED")
# The limit on Always Free's AMD machines: what it is called now, and what it was. Accounts list
# both, with the same value.
_LIMITS = ("standard-e2-micro-core-count", "vm-standard-e2-1-micro-count")

_REFUSED = {
    401: "Oracle does not accept the key of profile {profile}. Is its fingerprint in the console, "
    "among your user's API keys, and is this machine's clock right?",
    403: "profile {profile} may not see {what}. A member of the group Administrators may.",
    404: "profile {profile} may not see {what}, or there is none. A member of the group "
    "Administrators may; are tenancy and compartment right?",
    429: "Oracle throttles: it was asked {tries} times about {what}. Try again in a few minutes.",
}


class Account:
    """An account at Oracle, asked with the key of a profile in ~/.oci/config.

    Every method raises CloudError when Oracle refuses, UnreachableError when it cannot be reached.
    """

    def __init__(self, profile: str | None = None) -> None:
        """Read the profile. Raises HostError without the SDK, SecretError without a usable key."""
        self._oci = _sdk()
        self._profile = profile or "DEFAULT"
        self._config, self._signer = self._read()
        self.tenancy = str(self._config["tenancy"])

    def _read(self) -> tuple[dict[str, Told], Told]:
        where = f"profile {self._profile} of ~/.oci/config"
        try:
            config: dict[str, Told] = self._oci.config.from_file(profile_name=self._profile)
            self._oci.config.validate_config(config)
            signer = self._oci.signer.Signer.from_config(config)
        except self._oci.exceptions.ConfigFileNotFound:
            raise SecretError(
                "there is no ~/.oci/config with a key for Oracle: its console writes one for you, "
                "under your user's API keys"
            ) from None
        except self._oci.exceptions.ProfileNotFound:
            raise SecretError(f"there is no {where}") from None
        except self._oci.exceptions.InvalidConfig as error:
            faults = ", ".join(f"{key} is {fault}" for key, fault in sorted(error.errors.items()))
            raise SecretError(f"{where}: {faults}") from None
        except OSError as error:
            raise SecretError(f"{where}: {error.filename}: {error.strerror}") from None
        except (self._oci.exceptions.ClientError, configparser.Error, ValueError) as error:
            raise SecretError(f"{where}: {str(error).splitlines()[0]}") from None
        return config, signer

    def _client(self, service: str, name: str, region: str | None = None) -> Told:
        make = getattr(getattr(self._oci, service), name)
        retry = self._oci.retry.RetryStrategyBuilder(
            max_attempts=_TRIES,
            total_elapsed_time_seconds=_SECONDS,
            retry_max_wait_between_calls_seconds=5,
        )
        return make(
            {**self._config, **({"region": region} if region else {})},
            signer=self._signer,  # one for all: each would read the key anew, which takes a while
            timeout=(_CONNECT, _READ),
            retry_strategy=retry.get_retry_strategy(),
            circuit_breaker_strategy=self._oci.circuit_breaker.NoCircuitBreakerStrategy(),
        )

    def _ask(self, what: str, call: Callable[..., Told], *args: object, **more: object) -> Told:
        return self._answer(what, call, *args, **more).data

    def _answer(self, what: str, call: Callable[..., Told], *args: object, **more: object) -> Told:
        """Return what a call answers; its failures are told as being about ``what``."""
        errors = self._oci.exceptions
        try:
            return call(*args, **more)
        except errors.ServiceError as error:
            raise CloudError(self._refusal(what, error)) from None
        except (errors.RequestException, errors.ConnectTimeout):
            raise UnreachableError(
                f"Oracle cannot be reached, {_TRIES} times, to ask about {what}. Is this machine "
                "online, and the region's name right?"
            ) from None

    def _refusal(self, what: str, error: Told) -> str:
        known = _REFUSED.get(error.status)
        if known is not None:
            return known.format(profile=self._profile, what=what, tries=_TRIES)
        said = str(error.message).splitlines()[0] if error.message else ""
        return f"Oracle failed to tell of {what}: {error.status} {error.code}: {said}"

    def _list(
        self, what: str, call: Callable[..., Told], *args: object, **more: object
    ) -> list[Told]:
        """Return all pages. The SDK's own function for it would try each eight times more."""
        told, page = [], self._answer(what, call, *args, **more)
        told += page.data
        while page.has_next_page:
            page = self._answer(what, call, *args, **more, page=page.next_page)
            told += page.data
        return told

    def regions(self) -> tuple[Region, ...]:
        """Return the regions that the account uses."""
        identity = self._client("identity", "IdentityClient")
        told = self._list("the regions", identity.list_region_subscriptions, self.tenancy)
        return tuple(Region(each.region_name, bool(each.is_home_region)) for each in told)

    def plan(self, home: str) -> Plan | None:
        """Return what the account pays by, None where Oracle tells of none. Asked in its home."""
        gateway = self._client("osp_gateway", "SubscriptionServiceClient", home)
        told = self._ask("the subscription", gateway.list_subscriptions, home, self.tenancy)
        plans = [Plan(str(each.plan_type), str(each.upgrade_state or "")) for each in told.items]
        return plans[0] if plans else None

    def quotas(self, region: str, shape: str) -> tuple[Quota, ...]:
        """Return how many free machines each availability domain of ``region`` gives."""
        limits = self._client("limits", "LimitsClient", region)
        values = self._list(
            "the limits", limits.list_limit_values, self.tenancy, "compute", scope_type="AD"
        )
        listed = {each.name for each in values}
        name = next((each for each in _LIMITS if each in listed), None)
        return tuple(
            Quota(
                each.availability_domain,
                int(each.value),
                self._used(limits, "compute", each.name, each.availability_domain),
                shape in self._shapes(region, each.availability_domain),
            )
            for each in values
            if each.name == name
        )

    def _used(self, limits: Told, service: str, limit: str, domain: str) -> int | None:
        told = self._counted(limits, service, limit, availability_domain=domain)
        return None if told is None or told.used is None else int(told.used)

    def _counted(self, limits: Told, service: str, limit: str, **where: str) -> Told | None:
        """Return what is used of a limit, and what is left, None where Oracle does not tell."""
        call = limits.get_resource_availability
        try:
            return self._ask("what is used", call, service, limit, self.tenancy, **where)
        except CloudError:  # Oracle does not count every limit, and then says that there is none.
            return None

    def _shapes(self, region: str, domain: str) -> set[str]:
        compute = self._client("core", "ComputeClient", region)
        call = compute.list_shapes
        told = self._list("the shapes", call, self.tenancy, availability_domain=domain)
        return {str(each.shape) for each in told}

    def compartments(self) -> tuple[str, ...]:
        """Return the OCIDs of all compartments, of which the tenancy is the first."""
        identity = self._client("identity", "IdentityClient")
        told = self._list(
            "the compartments",
            identity.list_compartments,
            self.tenancy,
            compartment_id_in_subtree=True,
            access_level="ACCESSIBLE",
            lifecycle_state="ACTIVE",
        )
        return (self.tenancy, *(str(each.id) for each in told))

    def disks(self, region: str, compartments: Iterable[str]) -> tuple[Disk, ...]:
        """Return all boot and block volumes of ``region``."""
        storage = self._client("core", "BlockstorageClient", region)
        told = (
            each
            for compartment in compartments
            for call in (storage.list_boot_volumes, storage.list_volumes)
            for each in self._list("the volumes", call, compartment_id=compartment)
        )
        return tuple(
            Disk(str(each.display_name), int(each.size_in_gbs)) for each in told if _is_there(each)
        )

    def addresses(self, region: str, compartments: Iterable[str]) -> tuple[Reserved, ...]:
        """Return the reserved public addresses of ``region``."""
        call = self._client("core", "VirtualNetworkClient", region).list_public_ips
        return tuple(
            Reserved(str(each.ip_address), each.lifecycle_state == "ASSIGNED")
            for compartment in compartments
            for each in self._list(
                "the reserved addresses", call, "REGION", compartment, lifetime="RESERVED"
            )
            if _is_there(each)
        )

    def address_count(self, region: str) -> Count | None:
        """Return how many reserved addresses there may be in ``region``; None if it is not told."""
        limits = self._client("limits", "LimitsClient", region)
        told = self._counted(limits, "vcn", "reserved-public-ip-count")
        if told is None or told.used is None or told.available is None:
            return None
        return Count(limit=int(told.used + told.available), used=int(told.used))

    def machines(self, region: str, compartments: Iterable[str]) -> tuple[Machine, ...]:
        """Return the instances of ``region``."""
        call = self._client("core", "ComputeClient", region).list_instances
        return tuple(
            Machine(
                name=str(each.display_name),
                ocid=str(each.id),
                compartment=str(each.compartment_id),
                shape=str(each.shape),
                state=str(each.lifecycle_state),
                bandwidth=each.shape_config and each.shape_config.networking_bandwidth_in_gbps,
            )
            for compartment in compartments
            for each in self._list("the machines", call, compartment)
            if _is_there(each)
        )

    def week(self, region: str, machine: Machine) -> Week:
        """Return what was measured of ``machine`` in the last 7 days.

        CPU and memory are told by Oracle's agent on the machine, the network by its card:
        https://docs.oracle.com/en-us/iaas/Content/Network/Reference/vnicmetrics.htm
        """
        inside, network = "oci_computeagent", "oci_vcn"
        measured = self._series(region)
        cards = list(self._cards(region, machine))
        return Week(
            cpu=measured(inside, "CpuUtilization", "mean", machine.ocid),
            memory=measured(inside, "MemoryUtilization", "mean", machine.ocid),
            received=measured(network, "VnicFromNetworkBytes", "sum", *cards),
            sent=measured(network, "VnicToNetworkBytes", "sum", *cards),
        )

    def _cards(self, region: str, machine: Machine) -> Iterator[str]:
        call = self._client("core", "ComputeClient", region).list_vnic_attachments
        told = self._list("the network", call, machine.compartment, instance_id=machine.ocid)
        # A machine of ours has one card; another one's first is its main one.
        return (str(each.vnic_id) for each in told[:1] if each.vnic_id)

    def _series(self, region: str) -> Callable[..., tuple[float, ...]]:
        monitoring = self._client("monitoring", "MonitoringClient", region)
        # A card's figures lie in its subnet's compartment, which need not be the machine's.
        everywhere = {"compartment_id_in_subtree": True}
        now = datetime.now(UTC)

        def measured(
            namespace: str, metric: str, statistic: str, *resources: str
        ) -> tuple[float, ...]:
            details = [
                self._oci.monitoring.models.SummarizeMetricsDataDetails(
                    namespace=namespace,
                    query=f'{metric}[{STEP // 60}m]{{resourceId = "{resource}"}}.{statistic}()',
                    start_time=now - timedelta(days=DAYS),
                    end_time=now,
                )
                for resource in resources
            ]
            call = monitoring.summarize_metrics_data
            return tuple(
                float(point.value)
                for each in details
                for series in self._ask("what was measured", call, self.tenancy, each, **everywhere)
                for point in series.aggregated_datapoints
            )

        return measured


def _is_there(thing: Told) -> bool:
    return thing.lifecycle_state not in _GONE


def _sdk() -> Told:
    try:
        return importlib.import_module("oci")
    except ModuleNotFoundError:
        raise HostError(
            "this needs Oracle's Python SDK (300 MB). In the checkout:"
            " .venv/bin/pip install '.[oci]'"
        ) from None
