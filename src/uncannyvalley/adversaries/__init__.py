"""Attacks of other libraries, by name, run as black boxes on any nn.Module.

name         paper                        library, class                          norms     sees      queries an image
apgd-ce      Croce and Hein 2020          pyautoattack, APGDAttack                linf, l2  gradient  111
apgd-dlr     Croce and Hein 2020          pyautoattack, APGDAttack                linf, l2  gradient  111
fab          Croce and Hein 2020          pyautoattack, FABAttack_PT              linf, l2  gradient  212
square       Andriushchenko et al. 2020   pyautoattack, SquareAttack              linf, l2  logits    to 1012
autoattack   Croce and Hein 2020          pyautoattack, AutoAttack, "standard"    linf, l2  gradient  111 to 7864
cw           Carlini and Wagner 2017      foolbox, L2CarliniWagnerAttack          l2        gradient  to 1001
deepfool     Moosavi-Dezfooli et al. 2016 foolbox, LinfDeepFoolAttack, L2…        linf, l2  gradient  to 452
ddn          Rony et al. 2019             foolbox, DDNAttack                      l2        gradient  101
fmn          Pintor et al. 2021           foolbox, LInfFMNAttack, L2FMNAttack     linf, l2  gradient  101
nes          Ilyas et al. 2018            foolbox, PGD, es_gradient_estimator     linf, l2  logits    970
boundary     Brendel et al. 2018          foolbox, BoundaryAttack                 l2        label     about 1000 + start
hopskipjump  Chen et al. 2020             foolbox, HopSkipJumpAttack              linf, l2  label     about 850 + start

Queries are calls of the network at the defaults, with the libraries' own checks of the clean and the final images; each
maker's docstring has the formula. A start of the last two takes 4 to 153. Attacks with a radius ``eps`` stay in its
ball; cw, deepfool, ddn, fmn, boundary and hopskipjump look for the nearest adversarial, and count what they find within
eps, or anything for eps=None. Libraries are imported when an attack is made, from the extra "attacks".
"""

from collections.abc import Callable

from uncannyvalley.adversaries.adversary import Adversary, Outcome
from uncannyvalley.adversaries.black_box import boundary, hopskipjump, nes
from uncannyvalley.adversaries.ensemble import apgd_ce, apgd_dlr, autoattack, fab, square
from uncannyvalley.adversaries.minimum_norm import cw, ddn, deepfool, fmn
from uncannyvalley.errors import unknown_name

ADVERSARIES: dict[str, Callable[..., Adversary]] = {
    "apgd-ce": apgd_ce,
    "apgd-dlr": apgd_dlr,
    "fab": fab,
    "square": square,
    "autoattack": autoattack,
    "cw": cw,
    "deepfool": deepfool,
    "ddn": ddn,
    "fmn": fmn,
    "nes": nes,
    "boundary": boundary,
    "hopskipjump": hopskipjump,
}


def by_name(name: str) -> Callable[..., Adversary]:
    """The maker of the library attack ``name``; InputError with the nearest name for an unknown one."""
    if name not in ADVERSARIES:
        raise unknown_name("library attack", name, ADVERSARIES)
    return ADVERSARIES[name]


__all__ = [
    "ADVERSARIES", "Adversary", "Outcome", "apgd_ce", "apgd_dlr", "autoattack", "boundary", "by_name", "cw", "ddn",
    "deepfool", "fab", "fmn", "hopskipjump", "nes", "square",
]  # fmt: skip
