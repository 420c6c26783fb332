"""Three fitting motions or edits, one a line."""

import random

from contracts.describe import Language
from vl_service.fitting import fitting_motions
from vl_service.scene import Scene

_LIGHT: dict[Language, dict[str, str]] = {
    "en": {"dark": "Let the light slowly grow brighter", "bright": "Let evening fall until only the edges glow",
           "grey": "Let soft colour slowly return to the picture"},
    "zh": {"dark": "让光线慢慢变亮", "bright": "让暮色降临，只留边缘的微光", "grey": "让柔和的色彩慢慢回到画面"},
}


def suggest_edits(scene: Scene, language: Language, seed: int) -> str:
    """Three lines: a motion in the trained words, a change that suits the subject, a change of camera or light."""
    rng = random.Random(seed)
    motions = fitting_motions(scene, seed)
    it = scene.subject.definite(language) if scene.subject else ("主体" if language == "zh" else "the subject")
    lines = [motions[0].sentence(language, it).rstrip(".。")]
    if scene.subject is not None or scene.group_is_sure:
        lines.append(rng.choice(scene.group_words.edits[language]))
    else:
        family = motions[0].name.split("_")[0]
        other = next(motion for motion in motions if motion.name.split("_")[0] != family)
        lines.append(other.sentence(language, it).rstrip(".。"))
    lines.append(_LIGHT[language][_light_change(scene)])
    return "\n".join(lines)


def _light_change(scene: Scene) -> str:
    if scene.facts.colourfulness < 0.03:
        return "grey"
    return "dark" if scene.facts.brightness < 0.4 else "bright"
